// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// KeyCache holds the keys of a namespace, in the order of their creation, as the API lists them. It is the store of one Reflector, and
// passes each event on to a Keyring while it holds its own lock. So a request whose key the Keyring knows finds that key here too.
type KeyCache struct {
	keyring *authn.Keyring

	mu      sync.RWMutex
	byID    map[string]*entry
	sorted  []*entry      // by Position; the stores of client-go have no order
	changed chan struct{} // closed at the next change
}

var (
	_ cache.TransformingStore      = (*KeyCache)(nil)
	_ cache.ReflectorBookmarkStore = (*KeyCache)(nil)
)

// NewKeyCache returns an empty KeyCache that passes its events on to a Keyring.
func NewKeyCache(keyring *authn.Keyring) *KeyCache {
	return &KeyCache{keyring: keyring, byID: map[string]*entry{}, changed: make(chan struct{})}
}

// Run lists and watches the APIKeys of a namespace until ctx is done. It logs errors and retries; it never returns one.
func (c *KeyCache) Run(ctx context.Context, kubernetes client.WithWatch, namespace string) error {
	lists := c.listWatch(kubernetes, namespace)
	cache.NewReflectorWithOptions(lists, &v1alpha1.APIKey{}, c, authn.ReflectorOptions(ctx, "console")).RunWithContext(ctx)
	return nil
}

func (c *KeyCache) listWatch(kubernetes client.WithWatch, namespace string) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.APIKeyList{}
			err := kubernetes.List(ctx, list, &client.ListOptions{
				Namespace: namespace, Limit: options.Limit, Continue: options.Continue, Raw: &options,
			})
			c.keyring.Observe(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := kubernetes.Watch(ctx, &v1alpha1.APIKeyList{}, &client.ListOptions{Namespace: namespace, Raw: &options})
			if !apierrors.IsInvalid(err) { // an API server without streaming lists, where the Reflector lists instead
				c.keyring.Observe(ctx, err)
			}
			return events, err
		},
	}
}

// Await returns nil once the condition is true, or the cause when ctx is done first. It checks the condition at once and after each event.
func (c *KeyCache) Await(ctx context.Context, condition func() bool) error {
	for {
		c.mu.RLock()
		changed := c.changed
		c.mu.RUnlock()
		if condition() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// find returns the key with this ID, or nil.
func (c *KeyCache) find(id string) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id]
}

// list returns up to limit keys after a position that match, and whether more follow. The zero position is before all keys.
func (c *KeyCache) list(after keyclient.Position, limit int, matches func(*entry) bool) (found []*entry, more bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	start, exact := c.search(after)
	if exact {
		start++
	}
	found = make([]*entry, 0, min(limit, len(c.sorted)-start))
	for _, e := range c.sorted[start:] {
		switch {
		case !matches(e):
		case len(found) == limit:
			return found, true
		default:
			found = append(found, e)
		}
	}
	return found, false
}

// filter returns the keys that match, which are few.
func (c *KeyCache) filter(matches func(*entry) bool) []*entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var found []*entry
	for _, e := range c.sorted {
		if matches(e) {
			found = append(found, e)
		}
	}
	return found
}

// holderOf returns the key that holds an app name, or nil.
func (c *KeyCache) holderOf(appName string) *entry {
	canonical := apikey.CanonicalAppName(appName)
	found := c.filter(func(e *entry) bool { return !e.retired() && apikey.CanonicalAppName(e.appName) == canonical })
	keys := make([]v1alpha1.APIKey, len(found))
	for i, e := range found {
		keys[i] = e.asKey()
	}
	first := apikey.FirstForName(keys)
	if first == nil {
		return nil
	}
	return found[slices.IndexFunc(found, func(e *entry) bool { return e.id == string(first.UID) })]
}

func (c *KeyCache) search(p keyclient.Position) (at int, found bool) {
	return slices.BinarySearchFunc(c.sorted, p, (*entry).compare)
}

// insert inserts a key at its position.
func (c *KeyCache) insert(e *entry) {
	at, _ := c.search(e.Position)
	c.sorted = slices.Insert(c.sorted, at, e)
}

// remove removes a key from its position, if it has one.
func (c *KeyCache) remove(id string) {
	former, found := c.byID[id]
	if !found {
		return
	}
	at, _ := c.search(former.Position)
	for c.sorted[at] != former { // another key of this name, created in the same second
		at++
	}
	c.sorted = slices.Delete(c.sorted, at, at+1)
}

// update passes an event on to the Keyring, applies its change to the KeyCache, and wakes all that wait for an event.
func (c *KeyCache) update(passOn func() error, change func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := passOn(); err != nil {
		return err
	}
	change()
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// Replace replaces all keys by those of a list.
func (c *KeyCache) Replace(objects []any, resourceVersion string) error {
	parsed, byID, sorted := make([]any, len(objects)), make(map[string]*entry, len(objects)), make([]*entry, len(objects))
	for i := range objects {
		key, err := c.parse(objects[i])
		if err != nil {
			return err
		}
		parsed[i], byID[key.id], sorted[i] = key.forKeyring, key.entry, key.entry
	}
	slices.SortFunc(sorted, func(a, b *entry) int { return a.compare(b.Position) })
	return c.update(func() error { return c.keyring.Replace(parsed, resourceVersion) }, func() { c.byID, c.sorted = byID, sorted })
}

// Add adds a key.
func (c *KeyCache) Add(object any) error { return c.Update(object) }

// Update updates a key, or adds it.
func (c *KeyCache) Update(object any) error {
	key, err := c.parse(object)
	if err != nil {
		return err
	}
	return c.update(func() error { return c.keyring.Update(key.forKeyring) }, func() {
		c.remove(key.id)
		c.byID[key.id] = key.entry
		c.insert(key.entry)
	})
}

// Delete deletes a key.
func (c *KeyCache) Delete(object any) error {
	key, err := c.parse(object)
	if err != nil {
		return err
	}
	return c.update(func() error { return c.keyring.Delete(key.forKeyring) }, func() {
		c.remove(key.id)
		delete(c.byID, key.id)
	})
}

// Resync does nothing: the KeyCache has no event handlers.
func (c *KeyCache) Resync() error { return nil }

// Bookmark records that the Kubernetes API has sent a bookmark.
func (c *KeyCache) Bookmark(resourceVersion string) error { return c.keyring.Bookmark(resourceVersion) }

// Transformer returns a function that reduces an APIKey to the parts that are cached, so that a Reflector does not buffer whole objects.
func (c *KeyCache) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return c.parse(object) }
}

// parsedKey has the parts of an APIKey that the KeyCache and the Keyring store.
type parsedKey struct {
	*entry
	forKeyring any
}

// parse returns the parsed form of an object. A Reflector passes APIKeys, and the result of the Transformer after a streaming list.
func (c *KeyCache) parse(object any) (*parsedKey, error) {
	if parsed, ok := object.(*parsedKey); ok {
		return parsed, nil
	}
	forKeyring, err := c.keyring.Transformer()(object)
	if err != nil {
		return nil, err
	}
	return &parsedKey{entry: newEntry(object.(*v1alpha1.APIKey)), forKeyring: forKeyring}, nil
}

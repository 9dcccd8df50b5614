// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// KeyCache is what the API shows of the keys of a namespace: in the order of their creation, and never behind a call to the Kubernetes
// API. A Reflector writes it as its store (see [KeyCache.Run]).
type KeyCache struct {
	mu     sync.RWMutex
	byID   map[string]*entry
	sorted *btree.BTreeG[*entry]
	synced atomic.Bool
}

var _ cache.TransformingStore = (*KeyCache)(nil)

// entry is one key, as it was when the Kubernetes API last told of it. It never changes.
type entry struct {
	position
	validity    apikey.Validity
	issued      bool
	name        string // of the object
	appName     string
	readAccess  bool
	writeAccess bool
	manager     bool // as its label says
	updatedAt   time.Time
	expiresAt   *time.Time
}

// position of a key in a list: by its creation, and among those of the same second by its id. It stays the same for the key's life.
type position struct {
	createdAt int64 // in seconds since 1970
	id        string
}

func (p position) compare(other position) int {
	return cmp.Or(cmp.Compare(p.createdAt, other.createdAt), strings.Compare(p.id, other.id))
}

// activeAt says whether authenticators accept the key at the instant now.
func (e *entry) activeAt(now time.Time) bool {
	return e.issued && e.validity.State(now) == apikey.StateActive
}

// NewKeyCache returns a KeyCache that is empty and not synced.
func NewKeyCache() *KeyCache {
	c := &KeyCache{}
	c.fill(nil)
	return c
}

// Run fills the KeyCache with the APIKeys of a namespace and keeps it up to date until ctx is done. Whatever goes wrong on the way is
// logged and tried again; it never returns an error.
func (c *KeyCache) Run(ctx context.Context, kubernetes client.WithWatch, namespace string) error {
	logger := klog.FromContext(ctx)
	keys := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.APIKeyList{}
			err := kubernetes.List(ctx, list, &client.ListOptions{
				Namespace: namespace, Limit: options.Limit, Continue: options.Continue, Raw: &options,
			})
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return kubernetes.Watch(ctx, &v1alpha1.APIKeyList{}, &client.ListOptions{Namespace: namespace, Raw: &options})
		},
	}
	cache.NewReflectorWithOptions(keys, &v1alpha1.APIKey{}, c, cache.ReflectorOptions{
		Name:            "catalog",
		TypeDescription: "APIKey",
		Logger:          &logger,
		// Short, because a creation waits until the key is here.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Cap: time.Second, Steps: 10},
	}).RunWithContext(ctx)
	return nil
}

// Synced says whether a whole list of keys was received.
func (c *KeyCache) Synced() bool { return c.synced.Load() }

// find returns the key of this id, or nil.
func (c *KeyCache) find(id string) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id]
}

// holder returns the key that is active at the instant now under this app name, or nil.
func (c *KeyCache) holder(appName string, now time.Time) *entry {
	appName = apikey.CanonicalAppName(appName)
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, e := range c.byID {
		if e.activeAt(now) && apikey.CanonicalAppName(e.appName) == appName {
			return e
		}
	}
	return nil
}

// list returns up to limit keys after a position that match, and whether there are more. The zero position is before all keys.
func (c *KeyCache) list(after position, limit int, matches func(*entry) bool) (found []*entry, more bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found = make([]*entry, 0, min(limit, c.sorted.Len()))
	c.sorted.AscendGreaterOrEqual(&entry{position: after}, func(e *entry) bool {
		switch {
		case e.position == after || !matches(e):
			return true
		case len(found) == limit:
			more = true
			return false
		default:
			found = append(found, e)
			return true
		}
	})
	return found, more
}

// count returns how many keys match.
func (c *KeyCache) count(matches func(*entry) bool) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	count := 0
	for _, e := range c.byID {
		if matches(e) {
			count++
		}
	}
	return count
}

// Replace makes the KeyCache hold these keys and no others.
func (c *KeyCache) Replace(objects []any, _ string) error {
	entries := make([]*entry, len(objects))
	for i := range objects {
		var err error
		if entries[i], err = entryOf(objects[i]); err != nil {
			return err
		}
	}
	c.fill(entries)
	c.synced.Store(true)
	return nil
}

func (c *KeyCache) fill(entries []*entry) {
	byID := make(map[string]*entry, len(entries))
	sorted := btree.NewG(32, func(a, b *entry) bool { return a.compare(b.position) < 0 })
	for _, e := range entries {
		byID[e.id] = e
		sorted.ReplaceOrInsert(e)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byID, c.sorted = byID, sorted
}

// Add makes the KeyCache hold this key.
func (c *KeyCache) Add(object any) error { return c.Update(object) }

// Update makes the KeyCache hold this key as it is now.
func (c *KeyCache) Update(object any) error {
	e, err := entryOf(object)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byID[e.id] = e
	c.sorted.ReplaceOrInsert(e)
	return nil
}

// Delete takes this key out of the KeyCache.
func (c *KeyCache) Delete(object any) error {
	e, err := entryOf(object)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byID, e.id)
	c.sorted.Delete(e)
	return nil
}

// Resync has nothing to do: there is nothing to repeat to anybody.
func (c *KeyCache) Resync() error { return nil }

// Transformer returns what makes of an object the little that is shown of it, so that a Reflector buffers no more than that.
func (c *KeyCache) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return entryOf(object) }
}

func entryOf(object any) (*entry, error) {
	switch object := object.(type) {
	case *entry:
		return object, nil
	case *v1alpha1.APIKey:
		return newEntry(object), nil
	default:
		return nil, fmt.Errorf("the catalog holds APIKeys, not %T", object)
	}
}

func newEntry(key *v1alpha1.APIKey) *entry {
	e := &entry{
		position:    position{createdAt: key.CreationTimestamp.Unix(), id: string(key.UID)},
		validity:    apikey.ValidityOf(key),
		issued:      apikey.IsIssued(key),
		name:        key.Name,
		appName:     key.Spec.AppName,
		readAccess:  key.Spec.ReadAccess,
		writeAccess: key.Spec.WriteAccess,
		manager:     key.Labels[v1alpha1.LabelManager] == "true",
		updatedAt:   keyclient.UpdatedAt(key),
	}
	if key.Spec.ExpiresAt != nil {
		e.expiresAt = &key.Spec.ExpiresAt.Time
	}
	return e
}

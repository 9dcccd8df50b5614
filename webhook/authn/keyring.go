// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"squirrel.dev/apikey-operator/api/token"
)

// Keyring holds the tokens of all APIKeys, also those of keys that have ended. A Reflector writes it (see [Keyring.Run]); requests read
// it without a lock and without allocating.
type Keyring struct {
	store   atomic.Pointer[store]
	writing sync.Mutex // held by each method that changes the store

	synced         atomic.Bool
	lastSeen       atomic.Pointer[time.Time]
	listWatchError atomic.Pointer[error] // nil if the last call to the Kubernetes API succeeded
	refused        atomic.Bool           // whether the last call that the Kubernetes API responded to lacked the permission
}

var (
	_ KeySource                    = (*Keyring)(nil)
	_ cache.TransformingStore      = (*Keyring)(nil)
	_ cache.ReflectorBookmarkStore = (*Keyring)(nil)
)

// NewKeyring returns a Keyring that is empty and not synced.
func NewKeyring() *Keyring {
	k := &Keyring{}
	k.store.Store(newStore(0))
	k.seen()
	return k
}

// Synced reports whether the Keyring has received a whole list.
func (k *Keyring) Synced() bool { return k.synced.Load() }

// Len returns the number of tokens in the Keyring, also those of keys that have ended.
func (k *Keyring) Len() int { return int(k.store.Load().count.Load()) }

// Staleness returns the time since the Kubernetes API last sent a list, an event or a bookmark. Before the first one it is the time since
// NewKeyring.
func (k *Keyring) Staleness(now time.Time) time.Duration { return now.Sub(*k.lastSeen.Load()) }

// keyringOf returns the Keyring itself: it has the keys of all namespaces that are served.
func (k *Keyring) keyringOf(string) *Keyring { return k }

func (k *Keyring) all() iter.Seq2[string, *Keyring] {
	return func(yield func(string, *Keyring) bool) { yield(metav1.NamespaceAll, k) }
}

func (k *Keyring) lookup(namespace string, digest token.Digest, now func() time.Time) (*entry, Reason) {
	return k.store.Load().lookup(namespace, &digest, now)
}

func (k *Keyring) entriesOf(namespace, name string) []*entry {
	return k.store.Load().entriesOf(namespace, name)
}

func (k *Keyring) hasNamespace(namespace string) bool {
	return k.store.Load().namespaces.has(namespace)
}

// Replace replaces all keys by those of a list. Readers see the old keys or the new ones, and no mixture.
func (k *Keyring) Replace(objects []any, _ string) error {
	replacement, err := newStoreOf(objects)
	if err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	replacement.copyLastUses(k.store.Load())
	k.store.Store(replacement)
	k.synced.Store(true)
	k.seen()
	return nil
}

// Add adds a key. It replaces an earlier APIKey of the same name.
func (k *Keyring) Add(object any) error { return k.Update(object) }

// Update updates a key, or adds it. It replaces an earlier APIKey of the same name.
func (k *Keyring) Update(object any) error {
	key, err := parse(object)
	if err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	current := k.storeWithRoomFor(len(key.entries))
	current.replace(current.entriesOf(key.namespace, key.name), key.entries)
	k.seen()
	return nil
}

// Delete deletes a key. A later APIKey of the same name stays.
func (k *Keyring) Delete(object any) error {
	key, err := parse(object)
	if err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	current := k.store.Load()
	deleted := slices.DeleteFunc(current.entriesOf(key.namespace, key.name), func(e *entry) bool { return e.UID != key.uid })
	current.replace(deleted, nil)
	k.seen()
	return nil
}

// Resync does nothing: the Keyring has no event handlers.
func (k *Keyring) Resync() error { return nil }

// Transformer returns a function that reduces an APIKey to the parts that the Keyring holds. A store that passes its events on to the
// Keyring needs it, so that its Reflector does not buffer the whole objects of a list.
func (k *Keyring) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return parse(object) }
}

// Bookmark records that the Kubernetes API has sent a bookmark.
func (k *Keyring) Bookmark(_ string) error {
	k.seen()
	return nil
}

func (k *Keyring) seen() {
	now := time.Now()
	k.lastSeen.Store(&now)
}

// storeWithRoomFor returns the store. If it has no room for this many more entries, a larger one replaces it.
func (k *Keyring) storeWithRoomFor(entries int) *store {
	current := k.store.Load()
	if current.fits(entries) {
		return current
	}
	larger := newStore(int(current.count.Load()) + entries)
	for e := range current.byObject.all() {
		larger.put(nil, e)
	}
	k.store.Store(larger)
	return larger
}

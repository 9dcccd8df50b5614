// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/tools/cache"

	"squirrel.dev/apikey-operator/api/token"
)

// Key is what a verdict tells of an APIKey, and of the token of it that was presented. It never changes.
type Key struct {
	// What decides comes first, as [entry] says.

	deactivated, ended bool // as in v1alpha1.Validity
	// Access is what the key may do.
	Access Access
	// Namespace of the APIKey, and the only one where the key counts.
	Namespace string
	endsAt    int64 // when the token ends, at the latest with its key, in seconds since 1970; v1alpha1.NeverExpires is no such end

	keyEndsAt int64 // when its key ends
	// Name is the metadata.name of the APIKey.
	Name string
	// AppName is the app that the key belongs to, as UTF-8.
	AppName string
	// UID of the APIKey, which tells it from a former one of its name.
	UID string
	// IssuedAt is when the token was handed over, in seconds since 1970.
	IssuedAt int64
}

// ExpiresAt returns the instant from which the token is not accepted any more, in seconds since 1970; v1alpha1.NeverExpires is no such
// instant.
func (k *Key) ExpiresAt() int64 { return k.endsAt }

// Keyring holds the tokens that are accepted, or were until their key ended. A Reflector writes it as its store (see [Keyring.Run]);
// requests read it, without a lock and without allocating.
type Keyring struct {
	contents atomic.Pointer[contents]
	writing  sync.Mutex // held by whoever changes the contents

	synced    atomic.Bool
	lastWord  atomic.Pointer[time.Time]
	lastError atomic.Pointer[error] // nil when the last call to the Kubernetes API succeeded
}

var (
	_ cache.ReflectorStore         = (*Keyring)(nil)
	_ cache.ReflectorBookmarkStore = (*Keyring)(nil)
)

// NewKeyring returns a Keyring that is empty and not synced.
func NewKeyring() *Keyring {
	k := &Keyring{}
	k.contents.Store(newContents(0))
	k.heard()
	return k
}

// Synced says whether a whole list of keys was received.
func (k *Keyring) Synced() bool { return k.synced.Load() }

// Len returns the number of tokens in the Keyring, also those of keys that have ended.
func (k *Keyring) Len() int { return int(k.contents.Load().count.Load()) }

// Staleness returns how long before now the last word from the Kubernetes API came: a list, an event or a bookmark. Before the first one
// it counts from when the Keyring was made.
func (k *Keyring) Staleness(now time.Time) time.Duration { return now.Sub(*k.lastWord.Load()) }

// lookup returns the entry of a token in a namespace, or nil, and why the token is not accepted, or "".
func (k *Keyring) lookup(namespace string, digest *token.Digest, clock func() time.Time) (*entry, Reason) {
	return k.contents.Load().lookup(namespace, digest, clock)
}

// Replace makes the Keyring hold the tokens of these objects and of no others, at one instant for all readers. Like all that write a
// Keyring, it takes APIKeys, and what is decoded of them in wire.go.
func (k *Keyring) Replace(objects []any, _ string) error {
	replacement, err := contentsOf(objects)
	if err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	k.contents.Store(replacement)
	k.synced.Store(true)
	k.heard()
	return nil
}

// Add makes the Keyring hold the tokens of this object, in place of those of any former object of its name.
func (k *Keyring) Add(object any) error { return k.Update(object) }

// Update makes the Keyring hold the tokens of this object, in place of those of any former object of its name.
func (k *Keyring) Update(object any) error {
	r, err := recordOf(object)
	if err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	current := k.withRoomFor(len(r.tokens))
	current.exchange(current.ofObject(r.Namespace, r.Name), r.tokens)
	k.heard()
	return nil
}

// Delete takes the tokens of this object out of the Keyring, and leaves those of another object that has its name since.
func (k *Keyring) Delete(object any) error {
	r, err := recordOf(object)
	if err != nil {
		return err
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	current := k.contents.Load()
	former := current.ofObject(r.Namespace, r.Name)
	current.exchange(slices.DeleteFunc(former, func(e *entry) bool { return e.UID != r.UID }), nil)
	k.heard()
	return nil
}

// Resync has nothing to do: there is nothing to repeat to anybody.
func (k *Keyring) Resync() error { return nil }

// Bookmark records that the Kubernetes API had nothing to say.
func (k *Keyring) Bookmark(_ string) error {
	k.heard()
	return nil
}

func (k *Keyring) heard() {
	now := time.Now()
	k.lastWord.Store(&now)
}

// withRoomFor returns the contents, moved to larger indexes if this many tokens more do not fit.
func (k *Keyring) withRoomFor(tokens int) *contents {
	current := k.contents.Load()
	if current.fits(tokens) {
		return current
	}
	larger := newContents(int(current.count.Load()) + tokens)
	for e := range current.byObject.all() {
		larger.put(nil, e)
	}
	k.contents.Store(larger)
	return larger
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"squirrel.dev/apikey-operator/api/token"
)

// store holds entries, indexed by token for requests and by object for events. One goroutine at a time writes; readers take no lock.
type store struct {
	seed     maphash.Seed // random, so that no client can choose names that collide
	factors  [4]uint64    // random, so that no client can choose digests that collide
	byToken  index
	byObject index
	count    atomic.Int64

	namespaces namespaces
}

// newStore returns an empty store with room for this many entries.
func newStore(entries int) *store {
	s := &store{seed: maphash.MakeSeed(), byToken: newIndex(entries), byObject: newIndex(entries)}
	for i := range s.factors {
		s.factors[i] = maphash.Comparable(s.seed, i)
	}
	return s
}

// newStoreOf returns a store that holds the keys of a list.
func newStoreOf(objects []any) (*store, error) {
	keys, count := make([]*parsedKey, len(objects)), 0
	for i := range objects {
		key, err := parse(objects[i])
		if err != nil {
			return nil, err
		}
		keys[i] = key
		count += len(key.entries)
	}
	s := newStore(count)
	for _, key := range keys {
		s.replace(s.entriesOf(key.namespace, key.name), key.entries)
	}
	return s, nil
}

// copyLastUses copies the last use of each token that both stores have.
func (s *store) copyLastUses(from *store) {
	for old := range from.byToken.all() {
		if old.lastUse.load() == 0 {
			continue
		}
		for e := range s.byToken.find(s.tokenHash(old.Namespace, &old.digest)) {
			if e.isSameToken(old) {
				e.lastUse.moveForward(old.lastUse.load())
			}
		}
	}
}

// lookup returns the entry of a token in a namespace, or nil, and the reason to refuse the token now, or "". The controller issues no
// two keys of a namespace with one token. If two have one nevertheless, lookup prefers an accepted one.
func (s *store) lookup(namespace string, digest *token.Digest, now func() time.Time) (found *entry, refusal Reason) {
	refusal = ReasonKeyUnknown
	for e := range s.byToken.find(s.tokenHash(namespace, digest)) {
		if e.Namespace == namespace && e.digest.Equal(digest) {
			if found, refusal = e, e.refusal(now); refusal == "" {
				break
			}
		}
	}
	return found, refusal
}

// entriesOf returns the entries of an APIKey.
func (s *store) entriesOf(namespace, name string) []*entry {
	var entries []*entry
	for e := range s.byObject.find(s.objectHash(namespace, name)) {
		if e.Namespace == namespace && e.Name == name {
			entries = append(entries, e)
		}
	}
	return entries
}

// fits reports whether there is room for this many more entries.
func (s *store) fits(entries int) bool {
	return s.byToken.fits(entries) && s.byObject.fits(entries)
}

// replace replaces the entries of an object. Readers find a token that stays at every instant.
func (s *store) replace(old []*entry, entries []entry) {
	for i := range entries {
		var same *entry
		if at := slices.IndexFunc(old, func(e *entry) bool { return e.digest == entries[i].digest }); at >= 0 {
			same = old[at]
			if same.isSameToken(&entries[i]) {
				entries[i].lastUse.moveForward(same.lastUse.load())
			}
			old = slices.Delete(old, at, at+1)
		}
		s.put(same, &entries[i])
	}
	for _, e := range old {
		s.put(e, nil)
	}
}

// put replaces an entry by another of the same object and token. It adds an entry if from is nil, and deletes one if to is nil.
func (s *store) put(from, to *entry) {
	e := cmp.Or(to, from)
	s.byToken.put(s.tokenHash(e.Namespace, &e.digest), from, to)
	s.byObject.put(s.objectHash(e.Namespace, e.Name), from, to)
	switch {
	case from == nil:
		s.count.Add(1)
		s.namespaces.add(e.Namespace, 1)
	case to == nil:
		s.count.Add(-1)
		s.namespaces.add(e.Namespace, -1)
	}
}

// tokenHash includes the namespace, so that a token that is imported into many namespaces does not lengthen the probes of all. The digest
// is uniform unless its owner chose it, so two multiplications by secret factors suffice, in half the time of a maphash.
func (s *store) tokenHash(namespace string, digest *token.Digest) uint64 {
	operands := func(i int) (uint64, uint64) {
		return binary.NativeEndian.Uint64(digest[8*i:]) ^ s.factors[i], binary.NativeEndian.Uint64(digest[8*i+8:]) ^ s.factors[i+1]
	}
	high1, low1 := bits.Mul64(operands(0))
	high2, low2 := bits.Mul64(operands(2))
	return maphash.String(s.seed, namespace) ^ high1 ^ low1 ^ high2 ^ low2
}

func (s *store) objectHash(namespace, name string) uint64 {
	return maphash.Comparable(s.seed, [2]string{namespace, name})
}

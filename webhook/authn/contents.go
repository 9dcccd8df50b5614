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
	"squirrel.dev/apikey-operator/internal/apikey"
)

// entry is a token and its key. It never changes. All that decides about a token that is accepted is in the first of its two cache lines.
type entry struct {
	digest token.Digest
	Key
}

// refusal returns why the token is not accepted now, or "". It reads the clock only for a token that ends, since that takes about
// half as long as hashing the token.
func (e *entry) refusal(clock func() time.Time) Reason {
	var now time.Time
	if e.endsAt != apikey.NeverExpires {
		now = clock()
	}
	switch (apikey.Validity{Deactivated: e.deactivated, Ended: e.ended, ExpiresAt: e.endsAt}).State(now) {
	case apikey.StateDeactivated:
		return ReasonKeyDeactivated
	case apikey.StateExpired:
		if !e.ended && now.Unix() < e.keyEndsAt {
			return ReasonTokenSuperseded
		}
		return ReasonKeyExpired
	default:
		return ""
	}
}

// contents are entries that are found by token, as requests ask, and by object, as events tell.
type contents struct {
	seed     maphash.Seed // nobody outside can choose names that collide
	factors  [4]uint64    // nor digests
	byToken  index
	byObject index
	count    atomic.Int64

	namespaces namespaces
}

// newContents returns empty contents with room for this many entries.
func newContents(entries int) *contents {
	c := &contents{seed: maphash.MakeSeed(), byToken: newIndex(entries), byObject: newIndex(entries)}
	for i := range c.factors {
		c.factors[i] = maphash.Comparable(c.seed, i)
	}
	return c
}

// contentsOf returns the contents of a list of objects.
func contentsOf(objects []any) (*contents, error) {
	records, count := make([]*record, len(objects)), 0
	for i := range objects {
		r, err := recordOf(objects[i])
		if err != nil {
			return nil, err
		}
		records[i] = r
		count += len(r.tokens)
	}
	c := newContents(count)
	for _, r := range records {
		c.exchange(c.ofObject(r.Namespace, r.Name), r.tokens)
	}
	return c, nil
}

// lookup returns the entry of a token in a namespace, or nil, and why the token is not accepted, or "". Should several keys of the
// namespace have the token, which the controller never lets happen, one that is accepted goes first.
func (c *contents) lookup(namespace string, digest *token.Digest, clock func() time.Time) (found *entry, refusal Reason) {
	refusal = ReasonKeyUnknown
	for e := range c.byToken.find(c.tokenHash(namespace, digest)) {
		if e.Namespace == namespace && e.digest.Equal(digest) {
			if found, refusal = e, e.refusal(clock); refusal == "" {
				break
			}
		}
	}
	return found, refusal
}

// ofObject returns the entries of an object's name.
func (c *contents) ofObject(namespace, name string) []*entry {
	var entries []*entry
	for e := range c.byObject.find(c.objectHash(namespace, name)) {
		if e.Namespace == namespace && e.Name == name {
			entries = append(entries, e)
		}
	}
	return entries
}

func (c *contents) fits(entries int) bool {
	return c.byToken.fits(entries) && c.byObject.fits(entries)
}

// exchange puts an object's entries in the place of its former ones. A token that it keeps is there at every instant.
func (c *contents) exchange(former []*entry, entries []entry) {
	for i := range entries {
		var old *entry
		if at := slices.IndexFunc(former, func(e *entry) bool { return e.digest == entries[i].digest }); at >= 0 {
			old = former[at]
			former = slices.Delete(former, at, at+1)
		}
		c.put(old, &entries[i])
	}
	for _, old := range former {
		c.put(old, nil)
	}
}

// put exchanges one entry for another of the same object and token. From nil it adds, to nil it removes.
func (c *contents) put(from, to *entry) {
	e := cmp.Or(to, from)
	c.byToken.exchange(c.tokenHash(e.Namespace, &e.digest), from, to)
	c.byObject.exchange(c.objectHash(e.Namespace, e.Name), from, to)
	switch {
	case from == nil:
		c.count.Add(1)
		c.namespaces.add(e.Namespace, 1)
	case to == nil:
		c.count.Add(-1)
		c.namespaces.add(e.Namespace, -1)
	}
}

// tokenHash mixes in the namespace, so that a token brought to many namespaces does not make one long probe. A digest needs no more mixing
// than keeps those apart that somebody chose, which takes half as long as a maphash of it.
func (c *contents) tokenHash(namespace string, digest *token.Digest) uint64 {
	words := func(i int) (uint64, uint64) {
		return binary.NativeEndian.Uint64(digest[8*i:]) ^ c.factors[i], binary.NativeEndian.Uint64(digest[8*i+8:]) ^ c.factors[i+1]
	}
	high1, low1 := bits.Mul64(words(0))
	high2, low2 := bits.Mul64(words(2))
	return maphash.String(c.seed, namespace) ^ high1 ^ low1 ^ high2 ^ low2
}

func (c *contents) objectHash(namespace, name string) uint64 {
	return maphash.Comparable(c.seed, [2]string{namespace, name})
}

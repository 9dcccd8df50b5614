// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"cmp"
	"crypto/subtle"
	"hash/maphash"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// entry is a token and its key. It never changes. What decides comes first, to share a cache line.
type entry struct {
	digest   token.Digest
	notAfter int64 // seconds since 1970; v1alpha1.NeverExpires is no end
	Key
}

// refusal returns why the token is not accepted at the instant now, or "".
func (e *entry) refusal(now time.Time) Reason {
	switch e.validity.State(now) {
	case v1alpha1.StateDeactivated:
		return ReasonKeyDeactivated
	case v1alpha1.StateExpired:
		return ReasonKeyExpired
	}
	if now.Unix() >= e.notAfter {
		return ReasonTokenSuperseded
	}
	return ""
}

// contents are entries that are found by token, as requests ask, and by object, as events tell.
type contents struct {
	seed     maphash.Seed // nobody outside can choose token hashes or names that collide
	byToken  index
	byObject index
	count    atomic.Int64
}

type tokenID struct {
	namespace string
	digest    token.Digest
}

type objectID struct{ namespace, name string }

// newContents returns empty contents with room for this many entries.
func newContents(entries int) *contents {
	return &contents{seed: maphash.MakeSeed(), byToken: newIndex(entries), byObject: newIndex(entries)}
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

// withToken yields the entries of a token in a namespace.
func (c *contents) withToken(namespace string, digest token.Digest) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for e := range c.byToken.find(maphash.Comparable(c.seed, tokenID{namespace, digest})) {
			if e.Namespace == namespace && subtle.ConstantTimeCompare(e.digest[:], digest[:]) == 1 && !yield(e) {
				return
			}
		}
	}
}

// ofObject returns the entries of an object's name.
func (c *contents) ofObject(namespace, name string) []*entry {
	var entries []*entry
	for e := range c.byObject.find(maphash.Comparable(c.seed, objectID{namespace, name})) {
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

// put exchanges one entry for another of the same object and token; nil on either side adds or removes.
func (c *contents) put(old, new *entry) {
	e := cmp.Or(new, old)
	c.byToken.exchange(maphash.Comparable(c.seed, tokenID{e.Namespace, e.digest}), old, new)
	c.byObject.exchange(maphash.Comparable(c.seed, objectID{e.Namespace, e.Name}), old, new)
	switch {
	case old == nil:
		c.count.Add(1)
	case new == nil:
		c.count.Add(-1)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// index finds entries by a hash: open addressing with linear probing. Several entries may have one hash, and whoever looks compares
// them. One goroutine at a time writes; readers take no lock. What makes that safe: entries never move within an index, an entry is
// exchanged in its slot by one store, and a slot that was ever taken keeps a hash, so that a reader's probe never ends early.
type index struct {
	slots []slot
	taken int // slots that were ever taken; at most three quarters, so that every probe ends at a free one
}

type slot struct {
	hash  atomic.Uint64         // 0 when never taken
	entry atomic.Pointer[entry] // nil when there is none any more
}

// newIndex returns an index that is three fifths full with this many entries.
func newIndex(entries int) index {
	return index{slots: make([]slot, entries*5/3+8)}
}

// fits says whether this many entries can be added.
func (x *index) fits(entries int) bool {
	return x.taken+entries <= len(x.slots)/4*3
}

// find yields the entries of a hash.
func (x *index) find(hash uint64) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		hash |= 1
		for at := x.home(hash); ; {
			s := &x.slots[at]
			if at++; at == len(x.slots) {
				at = 0
			}
			switch s.hash.Load() {
			case 0:
				return
			case hash:
				if e := s.entry.Load(); e != nil && !yield(e) {
					return
				}
			}
		}
	}
}

// exchange puts one entry in the place of another with the same hash. From nil it adds, to nil it removes.
func (x *index) exchange(hash uint64, from, to *entry) {
	hash |= 1
	at := x.home(hash)
	for x.slots[at].entry.Load() != from {
		if at++; at == len(x.slots) {
			at = 0
		}
	}
	s := &x.slots[at]
	if s.hash.Load() == 0 {
		x.taken++
	}
	s.hash.Store(hash) // before the entry: a reader that meets one without the other passes on
	s.entry.Store(to)
}

// all yields every entry.
func (x *index) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i := range x.slots {
			if e := x.slots[i].entry.Load(); e != nil && !yield(e) {
				return
			}
		}
	}
}

// home is where the probe for a hash begins: the slots share out the scale of all hashes.
func (x *index) home(hash uint64) int {
	slot, _ := bits.Mul64(hash, uint64(len(x.slots)))
	return int(slot)
}

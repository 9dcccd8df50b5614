// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// index finds entries by their hash, with open addressing and linear probing. A Go map would need a lock, under which the slowest checks
// take 2 to 6 times as long while keys change. A sync.Map needs 114 bytes for each entry instead of 27. See
// docs/decisions/0005-lock-free-index.md.
//
// Several entries may have one hash: the caller of find compares them. One goroutine at a time writes; readers take no lock. That is safe
// because an entry never moves within an index, and one atomic store replaces the entry of a slot. A slot that was used once keeps a
// hash, so that no probe ends too early.
type index struct {
	slots []slot
	used  int // slots that were ever used; at most three quarters, so that every probe ends at a free one
}

type slot struct {
	hash  atomic.Uint64         // 0 if never used
	entry atomic.Pointer[entry] // nil if deleted
}

// newIndex returns an index that this many entries fill to three fifths.
func newIndex(entries int) index {
	return index{slots: make([]slot, entries*5/3+8)}
}

// fits reports whether there is room for this many more entries.
func (x *index) fits(entries int) bool {
	return x.used+entries <= len(x.slots)/4*3
}

// find yields the entries with a hash.
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

// put replaces an entry by another with the same hash. It adds an entry if from is nil, and deletes one if to is nil.
func (x *index) put(hash uint64, from, to *entry) {
	hash |= 1
	at := x.home(hash)
	for x.slots[at].entry.Load() != from {
		if at++; at == len(x.slots) {
			at = 0
		}
	}
	s := &x.slots[at]
	if s.hash.Load() == 0 {
		x.used++
	}
	s.hash.Store(hash) // before the entry: a reader skips a slot with a hash and no entry
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

// home is the slot at which the probe for a hash starts: the slots divide the range of hashes evenly.
func (x *index) home(hash uint64) int {
	slot, _ := bits.Mul64(hash, uint64(len(x.slots)))
	return int(slot)
}

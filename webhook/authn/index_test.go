// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Owners choose the hashes of imported tokens, and the names of objects.
func TestIndex_ChosenHashesAndNamesDoNotLengthenProbes(t *testing.T) {
	const entries, longest = 20_000, 1_000
	for name, choose := range map[string]func(i int) entry{
		"digests with one beginning": func(i int) entry {
			return entry{digest: numbered(i, token.Digest{}, 24), Key: Key{Namespace: "shop", Name: fmt.Sprint(i)}}
		},
		"digests with one end": func(i int) entry {
			return entry{digest: numbered(i, token.Digest{}, 0), Key: Key{Namespace: "shop", Name: fmt.Sprint(i)}}
		},
		"one digest in all namespaces": func(i int) entry {
			return entry{digest: token.Sum("t"), Key: Key{Namespace: fmt.Sprint("namespace-", i), Name: "name"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(entries)
			chosen := make([]entry, entries)
			for i := range chosen {
				chosen[i] = choose(i)
				store.put(nil, &chosen[i])
			}
			for i := range chosen {
				e := &chosen[i]
				if probed := slotsProbed(&store.byToken, store.tokenHash(e.Namespace, &e.digest), e); probed > longest {
					t.Fatalf("finding a token among %[2]d takes %[1]d slots", probed, entries)
				}
				if probed := slotsProbed(&store.byObject, store.objectHash(e.Namespace, e.Name), e); probed > longest {
					t.Fatalf("finding an object among %[2]d takes %[1]d slots", probed, entries)
				}
			}
		})
	}
}

func TestInvariant6_EntriesWithOneHashAreDistinguished(t *testing.T) {
	digest := token.Sum("t")
	for name, other := range map[string]entry{
		"another namespace": {digest: digest, Key: Key{endsAt: apikey.NeverExpires, Namespace: "bank"}},
		"another token":     {digest: token.Sum("another"), Key: Key{endsAt: apikey.NeverExpires, Namespace: "shop"}},
	} {
		store := newStore(1)
		store.byToken.put(store.tokenHash("shop", &digest), nil, &other)
		if found, refusal := store.lookup("shop", &digest, time.Now); found != nil || refusal != ReasonKeyUnknown {
			t.Errorf("the lookup found the token of %s: %v, %q", name, found, refusal)
		}
	}
}

func numbered(i int, digest token.Digest, offset int) token.Digest {
	binary.BigEndian.PutUint64(digest[offset:], uint64(i))
	return digest
}

func slotsProbed(x *index, hash uint64, wanted *entry) int {
	home := x.home(hash | 1)
	at := home
	for x.slots[at].entry.Load() != wanted {
		at = (at + 1) % len(x.slots)
	}
	return (at - home + len(x.slots)) % len(x.slots)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

var (
	hashA = "sha256:" + strings.Repeat("0a", 32)
	hashB = "sha256:" + strings.Repeat("0b", 32)
	hashC = "sha256:" + strings.Repeat("0c", 32)
)

// key returns an APIKey of the namespace shop with the app name "App", created in this minute. Its UID is its name.
func key(name string, minute int, changes ...func(*v1alpha1.APIKey)) v1alpha1.APIKey {
	key := v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         "shop",
			Name:              name,
			UID:               types.UID(name),
			CreationTimestamp: metav1.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC),
		},
		Spec: v1alpha1.APIKeySpec{AppName: "App", ReadAccess: true},
	}
	for _, change := range changes {
		change(&key)
	}
	return key
}

func app(name string) func(*v1alpha1.APIKey) {
	return func(k *v1alpha1.APIKey) { k.Spec.AppName = name }
}
func unreadable(fields ...string) func(*v1alpha1.APIKey) {
	return func(k *v1alpha1.APIKey) { k.Unreadable = fields }
}
func uid(uid types.UID) func(*v1alpha1.APIKey) { return func(k *v1alpha1.APIKey) { k.UID = uid } }
func imports(hash string) func(*v1alpha1.APIKey) {
	return func(k *v1alpha1.APIKey) { k.Spec.TokenHash = hash }
}
func claimed(hash string) func(*v1alpha1.APIKey) { return records(v1alpha1.TokenRecord{Hash: hash}) }
func issued(hash string) func(*v1alpha1.APIKey) {
	return records(v1alpha1.TokenRecord{Hash: hash, NotBefore: new(metav1.Now())})
}
func records(token v1alpha1.TokenRecord) func(*v1alpha1.APIKey) {
	return func(k *v1alpha1.APIKey) { k.Status.Tokens = append(k.Status.Tokens, token) }
}

func deactivated(k *v1alpha1.APIKey)  { k.Spec.Active = new(false) }
func endRecorded(k *v1alpha1.APIKey)  { k.Status.DeactivatedAt = new(metav1.Now()) }
func beingDeleted(k *v1alpha1.APIKey) { k.DeletionTimestamp = new(metav1.Now()) }
func expired(k *v1alpha1.APIKey)      { k.Spec.ExpiresAt = new(metav1.Unix(0, 0)) }

func stalled(reason string) func(*v1alpha1.APIKey) {
	return func(k *v1alpha1.APIKey) {
		k.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: reason}}
	}
}

func nameHeldBy(holder string) *apikey.Conflict {
	return &apikey.Conflict{
		Reason:  v1alpha1.ReasonAppNameConflict,
		Holder:  holder,
		Message: `App name "App" is held by APIKey "` + holder + `": deactivate or delete that key, or create this one with another app name.`,
	}
}

func hashHeldBy(holder string) *apikey.Conflict {
	return &apikey.Conflict{
		Reason:  v1alpha1.ReasonTokenHashConflict,
		Holder:  holder,
		Message: `APIKey "` + holder + `" already has this token hash: delete that key, or import another token.`,
	}
}

func TestFindConflict(t *testing.T) {
	type keys = []v1alpha1.APIKey
	for _, test := range []struct {
		rule   string
		key    v1alpha1.APIKey
		others keys
		want   *apikey.Conflict
	}{
		{"no other keys", key("me", 5), nil, nil},
		{"itself among the others", key("me", 5), keys{key("me", 5)}, nil},
		{"an earlier state of itself among the others", key("me", 5), keys{key("me", 5, issued(hashA))}, nil},
		{"another app name", key("me", 5), keys{key("other", 1, app("Other"))}, nil},
		{"the app name, composed otherwise", key("me", 5, app("Cafe\u0301")), keys{key("old", 1, app("Caf\u00e9"))}, &apikey.Conflict{
			Reason: v1alpha1.ReasonAppNameConflict, Holder: "old",
			Message: `App name "Café" is held by APIKey "old": deactivate or delete that key, or create this one with another app name.`,
		}},
		{"an app name that differs by an accent", key("me", 5, app("Cafe")), keys{key("old", 1, app("Caf\u00e9"))}, nil},
		{"an app name that differs in case", key("me", 5), keys{key("other", 1, app("app"))}, nil},

		{"the older holds the name", key("me", 5), keys{key("old", 1)}, nameHeldBy("old")},
		{"the younger does not", key("me", 5), keys{key("new", 9)}, nil},
		{"the younger, whose tokens are unreadable", key("me", 5), keys{key("new", 9, unreadable("status.tokens"))}, nameHeldBy("new")},
		{"of the same age, the lower UID", key("me", 5, uid("b")), keys{key("twin", 5, uid("a"))}, nameHeldBy("twin")},
		{"of the same age, the higher UID does not", key("me", 5, uid("a")), keys{key("twin", 5, uid("b"))}, nil},
		{"claimed before older", key("me", 1), keys{key("claimer", 9, claimed(hashA))}, nameHeldBy("claimer")},
		{"issued before claimed", key("me", 1, claimed(hashB)), keys{key("holder", 9, issued(hashA))}, nameHeldBy("holder")},
		{"both claimed: the older", key("me", 5, claimed(hashB)), keys{key("old", 1, claimed(hashA))}, nameHeldBy("old")},
		{"issued, it has no conflict with an older issued one", key("me", 5, issued(hashB)), keys{key("old", 1, issued(hashA))}, nil},
		{"issued, it has no conflict with older ones", key("me", 5, issued(hashB)), keys{key("old", 1), key("older", 0, claimed(hashA))}, nil},
		{"claimed, it has no conflict with an older one", key("me", 5, claimed(hashB)), keys{key("old", 1)}, nil},
		{"the first of several is named", key("me", 5), keys{key("b", 2), key("a", 1), key("c", 3)}, nameHeldBy("a")},
		{"the issued one of several is named", key("me", 5), keys{key("b", 2), key("a", 1), key("c", 9, issued(hashA))}, nameHeldBy("c")},

		{"deactivated, it releases the name", key("me", 5), keys{key("old", 1, issued(hashA), deactivated)}, nil},
		{"its end recorded, it releases the name", key("me", 5), keys{key("old", 1, issued(hashA), endRecorded)}, nil},
		{"being deleted, it releases the name", key("me", 5), keys{key("old", 1, issued(hashA), beingDeleted)}, nil},
		{"expired, its end not recorded, it holds the name", key("me", 5), keys{key("old", 1, issued(hashA), expired)}, nameHeldBy("old")},
		{"expired, its end recorded, it releases the name", key("me", 5), keys{key("old", 1, issued(hashA), expired, endRecorded)}, nil},
		{"after a deactivated one, the next holds the name", key("me", 5), keys{key("old", 1, deactivated), key("next", 2)}, nameHeldBy("next")},

		{"stalled by its hash, it does not reserve the name", key("me", 5), keys{key("old", 1, stalled(v1alpha1.ReasonTokenHashConflict))}, nil},
		{"stalled by another Secret, it does not reserve the name", key("me", 5), keys{key("old", 1, stalled(v1alpha1.ReasonSecretConflict))}, nil},
		{"its Secret refused, it does not reserve the name", key("me", 5), keys{key("old", 1, stalled(v1alpha1.ReasonSecretRefused))}, nil},
		{"stalled by its name, it keeps its precedence", key("me", 5),
			keys{key("old", 1, stalled(v1alpha1.ReasonAppNameConflict))}, nameHeldBy("old")},
		{"its Secret refused, it reserves the name while it has a claim", key("me", 5),
			keys{key("old", 1, stalled(v1alpha1.ReasonSecretRefused), claimed(hashA))}, nameHeldBy("old")},
		{"issued, it holds the name, stalled or not", key("me", 5),
			keys{key("old", 1, stalled(v1alpha1.ReasonTokenHashConflict), issued(hashA))}, nameHeldBy("old")},
		{"after a blocked one, the next holds the name", key("me", 5),
			keys{key("old", 1, stalled(v1alpha1.ReasonSecretRefused)), key("next", 2)}, nameHeldBy("next")},

		{"an imported hash that another imported", key("me", 5, imports(hashA)),
			keys{key("old", 1, app("Other"), imports(hashA))}, hashHeldBy("old")},
		{"an imported hash that another was issued", key("me", 5, imports(hashA)),
			keys{key("old", 1, app("Other"), issued(hashA))}, hashHeldBy("old")},
		{"an imported hash that the younger imported", key("me", 5, imports(hashA)),
			keys{key("new", 9, app("Other"), imports(hashA))}, nil},
		{"an imported hash that the younger was issued", key("me", 5, imports(hashA)),
			keys{key("new", 9, app("Other"), imports(hashA), issued(hashA))}, hashHeldBy("new")},
		{"a recorded hash that another imported", key("me", 5, claimed(hashA)),
			keys{key("old", 1, app("Other"), imports(hashA), claimed(hashA))}, hashHeldBy("old")},
		{"a hash that a superseded token had", key("me", 5, imports(hashA)),
			keys{key("old", 1, app("Other"), issued(hashB), issued(hashA))}, hashHeldBy("old")},
		{"a hash that an older key declares, and the younger has", key("me", 5, imports(hashA)),
			keys{key("old", 1, app("Other"), imports(hashA)), key("new", 9, app("New"), issued(hashA))}, hashHeldBy("new")},
		{"a hash that an older key declares, and the younger has claimed", key("me", 5, imports(hashA)),
			keys{key("old", 1, app("Other"), imports(hashA)), key("new", 9, app("New"), claimed(hashA))}, hashHeldBy("new")},
		{"a hash that a key with another token declares", key("me", 1, imports(hashA)),
			keys{key("new", 9, app("Other"), imports(hashA), issued(hashB))}, nil},
		{"a replacement that another key has", key("me", 1, imports(hashB), issued(hashA)),
			keys{key("new", 9, app("Other"), issued(hashB))}, hashHeldBy("new")},
		{"a replacement that an older key declares", key("me", 5, imports(hashB), issued(hashA)),
			keys{key("old", 1, app("Other"), imports(hashB))}, hashHeldBy("old")},
		{"a replacement that a younger key declares", key("me", 5, imports(hashB), issued(hashA)),
			keys{key("new", 9, app("Other"), imports(hashB))}, nil},
		{"a replacement does not compete for the app name", key("me", 5, imports(hashB), issued(hashA)), keys{key("old", 1)}, nil},
		{"a hash that it had before", key("me", 5, imports(hashB), issued(hashA), issued(hashB)),
			keys{key("old", 1, app("Other"), imports(hashB))}, nil},
		{"another hash", key("me", 5, imports(hashB)), keys{key("old", 1, app("Other"), issued(hashA))}, nil},
		{"a deactivated key keeps its hash", key("me", 5, imports(hashA)),
			keys{key("old", 1, issued(hashA), deactivated)}, hashHeldBy("old")},
		{"a key whose end is recorded keeps its hash", key("me", 5, imports(hashA)),
			keys{key("old", 1, issued(hashA), expired, endRecorded)}, hashHeldBy("old")},
		{"a key that is being deleted keeps its hash", key("me", 5, imports(hashA)),
			keys{key("old", 1, issued(hashA), beingDeleted)}, hashHeldBy("old")},
		{"the conflict of names precedes that of hashes", key("me", 5, imports(hashA)),
			keys{key("hash", 1, app("Other"), imports(hashA)), key("name", 2)}, nameHeldBy("name")},
	} {
		t.Run(test.rule, func(t *testing.T) {
			got := apikey.FindConflict(&test.key, test.others)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("FindConflict (-want +got):\n%s", diff)
			}
			if got != nil && (strings.Contains(got.Message, "shop") || got.Error() != got.Message) {
				t.Errorf("the message must not contain the namespace, and must be the error: %s", got.Message)
			}
		})
	}
}

// In any order of the keys of one app name, of which at most one is issued, exactly one has no conflict, and all others name it as the
// holder.
func TestFindConflict_ExactlyOneKeyHasNoConflict(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	hashes := func(k *v1alpha1.APIKey) string { return "sha256:" + string(k.UID) }
	for range 500 {
		keys := make([]v1alpha1.APIKey, 1+random.IntN(6))
		for i := range keys {
			keys[i] = key(string(rune('a'+i)), random.IntN(3))
			switch random.IntN(3) {
			case 0:
				claimed(hashes(&keys[i]))(&keys[i])
			case 1:
				deactivated(&keys[i])
			}
		}
		if holder := &keys[random.IntN(len(keys))]; random.IntN(2) == 0 {
			holder.Status.Tokens = nil
			issued(hashes(holder))(holder)
		}
		random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })

		active := slices.DeleteFunc(slices.Clone(keys), func(k v1alpha1.APIKey) bool { return apikey.IsRetired(&k) })
		var holders, named []string
		for i := range active {
			if conflict := apikey.FindConflict(&active[i], keys); conflict == nil {
				holders = append(holders, active[i].Name)
			} else {
				named = append(named, conflict.Holder)
			}
		}
		if len(active) > 0 && len(holders) != 1 {
			t.Fatalf("holders: %v of %+v", holders, active)
		}
		if slices.ContainsFunc(named, func(name string) bool { return name != holders[0] }) {
			t.Fatalf("%v holds the name, but the others name %v: %+v", holders, named, active)
		}
	}
}

// TestInvariant2_BlockedKeysDetectEachOthersClaims checks two keys of one app name in all states. If both have claimed, at most one may
// continue.
func TestInvariant2_BlockedKeysDetectEachOthersClaims(t *testing.T) {
	reasons := []string{
		"", v1alpha1.ReasonAppNameConflict, v1alpha1.ReasonTokenHashConflict, v1alpha1.ReasonSecretConflict, v1alpha1.ReasonSecretRefused,
	}
	for _, first := range reasons {
		for _, second := range reasons {
			keys := []v1alpha1.APIKey{key("a", 1, stalled(first), claimed(hashA)), key("b", 2, stalled(second), claimed(hashB))}
			for i := range keys {
				if apikey.FindConflict(&keys[i], keys) == nil && apikey.FindConflictingClaim(&keys[i], keys) == nil {
					t.Errorf("stalled by %q and %q, key %s continues while both have claimed", first, second, keys[i].Name)
				}
			}
		}
	}
}

// Each key of one app name has the same conflict with the first key alone as with all of them.
func TestFindConflict_TheFirstKeyCausesTheSameConflictAsAllKeys(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	reasons := []string{v1alpha1.ReasonAppNameConflict, v1alpha1.ReasonTokenHashConflict, v1alpha1.ReasonSecretConflict, v1alpha1.ReasonSecretRefused}
	for range 2_000 {
		keys := make([]v1alpha1.APIKey, 1+random.IntN(6))
		for i := range keys {
			keys[i] = key(string(rune('a'+i)), random.IntN(3), imports([]string{hashA, hashB}[random.IntN(2)]))
			switch random.IntN(6) {
			case 0:
				claimed(hashA)(&keys[i])
			case 1:
				issued(hashA)(&keys[i])
			case 2:
				issued(hashA)(&keys[i])
				claimed(hashB)(&keys[i])
			case 3:
				deactivated(&keys[i])
			}
			if random.IntN(2) == 0 {
				stalled(reasons[random.IntN(len(reasons))])(&keys[i])
			}
		}
		var first []v1alpha1.APIKey
		for _, key := range []*v1alpha1.APIKey{
			apikey.FirstForName(keys), apikey.FirstForHash(hashA, keys), apikey.FirstForHash(hashB, keys),
		} {
			if key != nil {
				first = append(first, *key)
			}
		}
		for i := range keys {
			if diff := cmp.Diff(apikey.FindConflict(&keys[i], keys), apikey.FindConflict(&keys[i], first)); diff != "" {
				t.Fatalf("the conflict of %s (-with all +with the first):\n%s%+v", keys[i].Name, diff, keys)
			}
		}
	}
}

func TestFindConflictingClaim(t *testing.T) {
	type keys = []v1alpha1.APIKey
	for _, test := range []struct {
		rule   string
		key    v1alpha1.APIKey
		others keys
		want   string
	}{
		{"no other keys", key("me", 5, claimed(hashA)), nil, ""},
		{"itself among the others", key("me", 5, claimed(hashA)), keys{key("me", 5, claimed(hashA))}, ""},
		{"a conflicting key without a claim", key("me", 5, claimed(hashA)), keys{key("old", 1)}, ""},
		{"an older conflicting key with a claim", key("me", 5, claimed(hashA)), keys{key("old", 1, claimed(hashB))}, "old"},
		{"a younger conflicting key with a claim", key("me", 5, claimed(hashA)), keys{key("new", 9, claimed(hashB))}, "new"},
		{"a conflicting key that was issued", key("me", 5, claimed(hashA)), keys{key("new", 9, issued(hashB))}, "new"},
		{"a retired key of the same app name", key("me", 5, claimed(hashA)), keys{key("old", 1, claimed(hashB), deactivated)}, ""},
		{"a key of another app name", key("me", 5, claimed(hashA)), keys{key("old", 1, app("Other"), claimed(hashB))}, ""},
		{"a key of another app name with the same hash", key("me", 5, imports(hashA), claimed(hashA)),
			keys{key("old", 1, app("Other"), imports(hashA), claimed(hashA))}, "old"},
		{"a key that only declares the same hash", key("me", 5, imports(hashA), claimed(hashA)),
			keys{key("old", 1, app("Other"), imports(hashA), issued(hashB))}, ""},
		{"a replacement that another key has claimed", key("me", 5, imports(hashA), issued(hashB), claimed(hashA)),
			keys{key("new", 9, app("Other"), imports(hashA), claimed(hashA))}, "new"},
		{"a replacement, and a key of the same app name", key("me", 5, imports(hashA), issued(hashB), claimed(hashA)),
			keys{key("new", 9, claimed(hashC))}, ""},
		{"a retired key with the same hash", key("me", 5, imports(hashA), claimed(hashA)),
			keys{key("old", 1, app("Other"), issued(hashA), endRecorded)}, "old"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			got := ""
			if other := apikey.FindConflictingClaim(&test.key, test.others); other != nil {
				got = other.Name
			}
			if got != test.want {
				t.Errorf("FindConflictingClaim = %q, want %q", got, test.want)
			}
		})
	}
}

func TestHashesOf(t *testing.T) {
	for _, test := range []struct {
		rule string
		key  v1alpha1.APIKey
		want []string
	}{
		{"none", key("me", 0), nil},
		{"declared", key("me", 0, imports(hashA)), []string{hashA}},
		{"declared and recorded", key("me", 0, imports(hashA), issued(hashA)), []string{hashA}},
		{"recorded", key("me", 0, claimed(hashB), issued(hashA)), []string{hashB, hashA}},
	} {
		t.Run(test.rule, func(t *testing.T) {
			if diff := cmp.Diff(test.want, apikey.HashesOf(&test.key)); diff != "" {
				t.Errorf("HashesOf (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAwaitsToken(t *testing.T) {
	for _, test := range []struct {
		rule string
		key  v1alpha1.APIKey
		want bool
	}{
		{"no token", key("me", 0), true},
		{"a claim", key("me", 0, claimed(hashA)), true},
		{"a token", key("me", 0, issued(hashA)), false},
		{"the declared token", key("me", 0, imports(hashA), issued(hashA)), false},
		{"another token than the declared one", key("me", 0, imports(hashB), issued(hashA)), true},
		{"a claim of the declared token", key("me", 0, imports(hashB), issued(hashA), claimed(hashB)), true},
		{"the declared token, superseded", key("me", 0, imports(hashB), issued(hashA), issued(hashB)), false},
	} {
		if got := apikey.AwaitsToken(&test.key); got != test.want {
			t.Errorf("%s: AwaitsToken = %t, want %t", test.rule, got, test.want)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestKeyring_AppliesEvents(t *testing.T) {
	keyring := keyringOf(t, newKey("shop", "first", issued("1")))

	framework.Must(t, keyring.Add(newKey("shop", "second", issued("2"))))
	expect(t, keyring, "shop", "1", granted("uid-of-first"))
	expect(t, keyring, "shop", "2", granted("uid-of-second"))

	framework.Must(t, keyring.Update(newKey("shop", "second", issued("2"), inactive)))
	expect(t, keyring, "shop", "2", outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, "uid-of-second"})

	framework.Must(t, keyring.Delete(newKey("shop", "second", issued("2"), inactive)))
	expect(t, keyring, "shop", "2", unknown)
	framework.Must(t, keyring.Delete(newKey("shop", "second", issued("2"), inactive)))
	expect(t, keyring, "shop", "1", granted("uid-of-first"))

	framework.Must(t, keyring.Replace(objects(newKey("shop", "third", issued("3"))), "9"))
	expect(t, keyring, "shop", "1", unknown)
	expect(t, keyring, "shop", "3", granted("uid-of-third"))

	framework.Must(t, keyring.Resync())
	if keyring.Len() != 1 {
		t.Errorf("Len() = %d, want 1", keyring.Len())
	}
}

func TestKeyring_AcceptsBothTokensDuringAnOverlap(t *testing.T) {
	overlap := notAfter(today.Add(time.Minute))
	keyring := keyringOf(t, newKey("shop", "k", issued("old")))

	framework.Must(t, keyring.Update(newKey("shop", "k", issued("new"), issued("old", overlap))))
	expect(t, keyring, "shop", "old", granted("uid-of-k"))
	expect(t, keyring, "shop", "new", granted("uid-of-k"))

	framework.Must(t, keyring.Update(newKey("shop", "k", issued("newest"), issued("new", overlap))))
	expect(t, keyring, "shop", "old", unknown)
	expect(t, keyring, "shop", "new", granted("uid-of-k"))
	expect(t, keyring, "shop", "newest", granted("uid-of-k"))

	framework.Must(t, keyring.Delete(newKey("shop", "k")))
	for _, plaintext := range []string{"old", "new", "newest"} {
		expect(t, keyring, "shop", plaintext, unknown)
	}
	if keyring.Len() != 0 {
		t.Errorf("Len() = %d, want 0", keyring.Len())
	}
}

func TestKeyring_DeletingOneOfTwoKeysWithOneHashKeepsTheOther(t *testing.T) {
	former := newKey("shop", "k", issued("t"), uid("former"))
	later := newKey("shop", "k", issued("t"), uid("later"))
	elsewhere := newKey("bank", "k", issued("t"), uid("elsewhere"))
	sibling := newKey("shop", "sibling", issued("t"), uid("sibling"))
	type step = func(*authn.Keyring) error
	add := func(key *v1alpha1.APIKey) step { return func(k *authn.Keyring) error { return k.Add(key) } }
	update := func(key *v1alpha1.APIKey) step { return func(k *authn.Keyring) error { return k.Update(key) } }
	remove := func(key *v1alpha1.APIKey) step { return func(k *authn.Keyring) error { return k.Delete(key) } }
	list := func(keys ...*v1alpha1.APIKey) step {
		return func(k *authn.Keyring) error { return k.Replace(objects(keys...), "") }
	}
	for name, test := range map[string]struct {
		steps      []step
		shop, bank outcome
	}{
		"two namespaces":                            {[]step{add(former), add(elsewhere), remove(former)}, unknown, granted("elsewhere")},
		"two namespaces, the other one deleted":     {[]step{add(former), add(elsewhere), remove(elsewhere)}, granted("former"), unknown},
		"created again":                             {[]step{add(former), remove(former), add(later)}, granted("later"), unknown},
		"created again, late delete":                {[]step{add(former), add(later), remove(former)}, granted("later"), unknown},
		"created again, no delete event":            {[]step{add(former), add(later)}, granted("later"), unknown},
		"created again, as an update event":         {[]step{add(former), update(later), remove(former)}, granted("later"), unknown},
		"created again, two delete events":          {[]step{add(former), remove(former), add(later), remove(former)}, granted("later"), unknown},
		"created again between two lists":           {[]step{list(former, elsewhere), list(elsewhere, later)}, granted("later"), granted("elsewhere")},
		"listed, then a delete event of the former": {[]step{list(later), remove(former)}, granted("later"), unknown},
		"both gone":                            {[]step{add(former), add(elsewhere), remove(elsewhere), remove(former)}, unknown, unknown},
		"one namespace":                        {[]step{add(former), add(sibling), remove(former)}, granted("sibling"), unknown},
		"one namespace, the other one deleted": {[]step{add(former), add(sibling), remove(sibling)}, granted("former"), unknown},
		"one namespace, one deactivated": {[]step{add(former), add(sibling), update(newKey("shop", "k", issued("t"), uid("former"), inactive))},
			granted("sibling"), unknown},
		"one namespace, the other deactivated": {[]step{add(former), add(sibling), update(newKey("shop", "sibling", issued("t"), uid("sibling"), inactive))},
			granted("former"), unknown},
	} {
		t.Run(name, func(t *testing.T) {
			keyring := keyringOf(t)
			for _, step := range test.steps {
				framework.Must(t, step(keyring))
			}
			expect(t, keyring, "shop", "t", test.shop)
			expect(t, keyring, "bank", "t", test.bank)
		})
	}
}

func TestKeyring_LeavesOutUnreadableTokensAlone(t *testing.T) {
	var malformed []func(*v1alpha1.APIKey)
	for _, hash := range []string{"", "sha256:", "md5:00", "sha256:zz", "\x00"} {
		malformed = append(malformed, issued("", hashed(hash)))
	}
	keyring := keyringOf(t,
		newKey("shop", "malformed", append(malformed, issued("its-other-token"))...),
		newKey("shop", "sound", issued("sound")))
	expect(t, keyring, "shop", "sound", granted("uid-of-sound"))
	expect(t, keyring, "shop", "its-other-token", granted("uid-of-malformed"))
	expect(t, keyring, "shop", "", outcome{authn.Unauthenticated, authn.ReasonCredentialMissing, ""})
	if keyring.Len() != 2 {
		t.Errorf("Len() = %d, want 2", keyring.Len())
	}
}

func TestKeyring_RejectsOtherTypes(t *testing.T) {
	keyring := keyringOf(t, newKey("shop", "k", issued("t")))
	const want = "the keyring holds APIKeys, not string"
	for name, err := range map[string]error{
		"Add": keyring.Add("x"), "Update": keyring.Update("x"), "Delete": keyring.Delete("x"), "Replace": keyring.Replace([]any{"x"}, ""),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%s of a string: %v, want %s", name, err, want)
		}
	}
	expect(t, keyring, "shop", "t", granted("uid-of-k"))
}

func TestKeyring_GrowsAndShrinks(t *testing.T) {
	const keys = 5000
	keyring := keyringOf(t)
	for round := range 3 { // deleted tokens leave room
		for i := range keys {
			framework.Must(t, keyring.Add(newKey(fmt.Sprint("namespace-", i%7), fmt.Sprint("k", i), issued(fmt.Sprint(round, "/", i)))))
		}
		if keyring.Len() != keys {
			t.Fatalf("Len() = %d, want %d", keyring.Len(), keys)
		}
		for i := range keys {
			expect(t, keyring, fmt.Sprint("namespace-", i%7), fmt.Sprint(round, "/", i), granted(fmt.Sprint("uid-of-k", i)))
			expect(t, keyring, fmt.Sprint("namespace-", (i+1)%7), fmt.Sprint(round, "/", i), unknown)
		}
		for i := range keys {
			framework.Must(t, keyring.Delete(newKey(fmt.Sprint("namespace-", i%7), fmt.Sprint("k", i))))
		}
		if keyring.Len() != 0 {
			t.Fatalf("Len() = %d, want 0", keyring.Len())
		}
	}
}

// Some goroutines read while one writes all that a Reflector may write. A key that is always valid must always be granted.
func TestInvariant4_AValidKeyIsGrantedDuringAllChanges(t *testing.T) {
	const readers, others, rounds = 4, 300, 10
	always := newKey("shop", "always", issued("always"))
	list := func(round int) []any {
		list := objects(always)
		for i := range others {
			list = append(list, newKey("shop", fmt.Sprint("k", i), issued(fmt.Sprint(i)), issued(fmt.Sprint(round, "/", i))))
		}
		return list
	}
	keyring := keyringOf(t, always)

	var done atomic.Bool
	var running sync.WaitGroup
	for range readers {
		running.Go(func() {
			for !done.Load() {
				if got := outcomeOf(decide(keyring, "shop", "always")); got != granted("uid-of-always") {
					t.Errorf("the verdict on the key that is always valid is %v", got)
					return
				}
				if got := outcomeOf(decide(keyring, "bank", "always")); got != unknown {
					t.Errorf("in another namespace, the verdict is %v", got)
					return
				}
			}
		})
	}
	defer running.Wait()
	defer done.Store(true)
	for round := range rounds {
		for i := range others {
			name := fmt.Sprint("k", i)
			framework.Must(t, keyring.Update(newKey("shop", name, issued(fmt.Sprint(round, "+", i)), issued(fmt.Sprint(round, "/", i)))))
			framework.Must(t, keyring.Update(always))
			if i%2 == 0 {
				framework.Must(t, keyring.Delete(newKey("shop", name)))
			}
		}
		// Another object with the same token is added and deleted.
		framework.Must(t, keyring.Add(newKey("shop", "twin", issued("always"), inactive)))
		framework.Must(t, keyring.Delete(newKey("shop", "twin", issued("always"), inactive)))
		framework.Must(t, keyring.Replace(list(round), ""))
	}
}

// The first verdict after a write is decided from it.
func TestInvariant5_AnEndedKeyIsRefusedAsSoonAsItsEventArrives(t *testing.T) {
	keyring := keyringOf(t)
	for i := range 2000 {
		key := newKey("shop", fmt.Sprint("k", i%5), issued("t"), uid(types.UID(fmt.Sprint(i))))
		framework.Must(t, keyring.Add(key))
		expect(t, keyring, "shop", "t", granted(fmt.Sprint(i)))
		switch i % 3 {
		case 0:
			framework.Must(t, keyring.Delete(key))
			expect(t, keyring, "shop", "t", unknown)
		case 1:
			framework.Must(t, keyring.Update(newKey("shop", key.Name, issued("t"), uid(key.UID), inactive)))
			expect(t, keyring, "shop", "t", outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, fmt.Sprint(i)})
			framework.Must(t, keyring.Delete(key))
		case 2:
			framework.Must(t, keyring.Replace(nil, ""))
			expect(t, keyring, "shop", "t", unknown)
		}
	}
}

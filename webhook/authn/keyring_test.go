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
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestTheKeyringFollowsEvents(t *testing.T) {
	keyring := keyringOf(t, newKey("shop", "first", issued("1")))

	succeed(t, keyring.Add(newKey("shop", "second", issued("2"))))
	expect(t, keyring, "shop", "1", granted("uid-of-first"))
	expect(t, keyring, "shop", "2", granted("uid-of-second"))

	succeed(t, keyring.Update(newKey("shop", "second", issued("2"), inactive)))
	expect(t, keyring, "shop", "2", outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, "uid-of-second"})

	succeed(t, keyring.Delete(newKey("shop", "second", issued("2"), inactive)))
	expect(t, keyring, "shop", "2", unknown)
	succeed(t, keyring.Delete(newKey("shop", "second", issued("2"), inactive)))
	expect(t, keyring, "shop", "1", granted("uid-of-first"))

	succeed(t, keyring.Replace(objects(newKey("shop", "third", issued("3"))), "9"))
	expect(t, keyring, "shop", "1", unknown)
	expect(t, keyring, "shop", "3", granted("uid-of-third"))

	succeed(t, keyring.Resync())
	if keyring.Len() != 1 {
		t.Errorf("Len() = %d, want 1", keyring.Len())
	}
}

func TestBothTokensOfAKeyAreAcceptedWhileTheyOverlap(t *testing.T) {
	overlap := notAfter(today.Add(time.Minute))
	keyring := keyringOf(t, newKey("shop", "k", issued("old")))

	succeed(t, keyring.Update(newKey("shop", "k", issued("new"), issued("old", overlap))))
	expect(t, keyring, "shop", "old", granted("uid-of-k"))
	expect(t, keyring, "shop", "new", granted("uid-of-k"))

	succeed(t, keyring.Update(newKey("shop", "k", issued("newest"), issued("new", overlap))))
	expect(t, keyring, "shop", "old", unknown)
	expect(t, keyring, "shop", "new", granted("uid-of-k"))
	expect(t, keyring, "shop", "newest", granted("uid-of-k"))

	succeed(t, keyring.Delete(newKey("shop", "k")))
	for _, plaintext := range []string{"old", "new", "newest"} {
		expect(t, keyring, "shop", plaintext, unknown)
	}
	if keyring.Len() != 0 {
		t.Errorf("Len() = %d, want 0", keyring.Len())
	}
}

func TestDeletingOneOfTwoKeysWithOneHashLeavesTheOther(t *testing.T) {
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
		"two namespaces":                       {[]step{add(former), add(elsewhere), remove(former)}, unknown, granted("elsewhere")},
		"two namespaces, the other way round":  {[]step{add(former), add(elsewhere), remove(elsewhere)}, granted("former"), unknown},
		"created again":                        {[]step{add(former), remove(former), add(later)}, granted("later"), unknown},
		"created again, told late of the end":  {[]step{add(former), add(later), remove(former)}, granted("later"), unknown},
		"created again, never told of the end": {[]step{add(former), add(later)}, granted("later"), unknown},
		"created again, told as an update":     {[]step{add(former), update(later), remove(former)}, granted("later"), unknown},
		"created again, told twice of the end": {[]step{add(former), remove(former), add(later), remove(former)}, granted("later"), unknown},
		"created again between two lists":      {[]step{list(former, elsewhere), list(elsewhere, later)}, granted("later"), granted("elsewhere")},
		"listed, then told of the former end":  {[]step{list(later), remove(former)}, granted("later"), unknown},
		"both gone":                            {[]step{add(former), add(elsewhere), remove(elsewhere), remove(former)}, unknown, unknown},
		"one namespace":                        {[]step{add(former), add(sibling), remove(former)}, granted("sibling"), unknown},
		"one namespace, the other way round":   {[]step{add(former), add(sibling), remove(sibling)}, granted("former"), unknown},
		"one namespace, one deactivated": {[]step{add(former), add(sibling), update(newKey("shop", "k", issued("t"), uid("former"), inactive))},
			granted("sibling"), unknown},
		"one namespace, the other deactivated": {[]step{add(former), add(sibling), update(newKey("shop", "sibling", issued("t"), uid("sibling"), inactive))},
			granted("former"), unknown},
	} {
		t.Run(name, func(t *testing.T) {
			keyring := keyringOf(t)
			for _, step := range test.steps {
				succeed(t, step(keyring))
			}
			expect(t, keyring, "shop", "t", test.shop)
			expect(t, keyring, "bank", "t", test.bank)
		})
	}
}

func TestATokenThatCannotBeReadTakesNothingElseDown(t *testing.T) {
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

func TestTheKeyringHoldsNothingButAPIKeys(t *testing.T) {
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

func TestTheKeyringGrowsAndShrinks(t *testing.T) {
	const keys = 5000
	keyring := keyringOf(t)
	for round := range 3 { // what was taken out leaves room
		for i := range keys {
			succeed(t, keyring.Add(newKey(fmt.Sprint("namespace-", i%7), fmt.Sprint("k", i), issued(fmt.Sprint(round, "/", i)))))
		}
		if keyring.Len() != keys {
			t.Fatalf("Len() = %d, want %d", keyring.Len(), keys)
		}
		for i := range keys {
			expect(t, keyring, fmt.Sprint("namespace-", i%7), fmt.Sprint(round, "/", i), granted(fmt.Sprint("uid-of-k", i)))
			expect(t, keyring, fmt.Sprint("namespace-", (i+1)%7), fmt.Sprint(round, "/", i), unknown)
		}
		for i := range keys {
			succeed(t, keyring.Delete(newKey(fmt.Sprint("namespace-", i%7), fmt.Sprint("k", i))))
		}
		if keyring.Len() != 0 {
			t.Fatalf("Len() = %d, want 0", keyring.Len())
		}
	}
}

// Some read, one writes everything that a Reflector may write, and a key that is valid all the time is granted all the time.
func TestInvariant4_AValidKeyIsGrantedAtEveryInstantOfEveryChange(t *testing.T) {
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
					t.Errorf("the key that is always valid: %v", got)
					return
				}
				if got := outcomeOf(decide(keyring, "bank", "always")); got != unknown {
					t.Errorf("in a namespace that is not its own: %v", got)
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
			succeed(t, keyring.Update(newKey("shop", name, issued(fmt.Sprint(round, "+", i)), issued(fmt.Sprint(round, "/", i)))))
			succeed(t, keyring.Update(always))
			if i%2 == 0 {
				succeed(t, keyring.Delete(newKey("shop", name)))
			}
		}
		// Another object that holds the same token comes and goes.
		succeed(t, keyring.Add(newKey("shop", "twin", issued("always"), inactive)))
		succeed(t, keyring.Delete(newKey("shop", "twin", issued("always"), inactive)))
		succeed(t, keyring.Replace(list(round), ""))
	}
}

// Whoever writes has the last word at once: the next verdict is made from it, in whatever goroutine.
func TestInvariant5_AnEndedKeyIsRefusedFromTheEventOn(t *testing.T) {
	keyring := keyringOf(t)
	for i := range 2000 {
		key := newKey("shop", fmt.Sprint("k", i%5), issued("t"), uid(types.UID(fmt.Sprint(i))))
		succeed(t, keyring.Add(key))
		expect(t, keyring, "shop", "t", granted(fmt.Sprint(i)))
		switch i % 3 {
		case 0:
			succeed(t, keyring.Delete(key))
			expect(t, keyring, "shop", "t", unknown)
		case 1:
			succeed(t, keyring.Update(newKey("shop", key.Name, issued("t"), uid(key.UID), inactive)))
			expect(t, keyring, "shop", "t", outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, fmt.Sprint(i)})
			succeed(t, keyring.Delete(key))
		case 2:
			succeed(t, keyring.Replace(nil, ""))
			expect(t, keyring, "shop", "t", unknown)
		}
	}
}

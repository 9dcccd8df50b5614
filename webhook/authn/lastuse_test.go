// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// ever is longer than any process runs, in minutes.
const ever = math.MaxUint32

func TestUses_OnlyGrantedChecksCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCountingAuthenticator(t,
			newKey("shop", "granted", issued("granted"), access(true, false)),
			newKey("shop", "forbidden", issued("forbidden"), access(true, false)),
			newKey("shop", "ended", issued("ended"), ended),
			newKey("shop", "elsewhere", issued("elsewhere")),
			newKey("shop", "unused", issued("unused")),
		)
		a.check("shop", "granted", authn.Read)
		a.check("shop", "forbidden", authn.Write)
		a.check("shop", "ended", authn.Read)
		a.check("other", "elsewhere", authn.Read)
		a.assertUses(ever, "shop/granted granted 0 min")
	})
}

func TestUses_AgesCountFromTheLastUseOfEachToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCountingAuthenticator(t, newKey("shop", "a", issued("new"), issued("superseded", notAfter(today.Add(time.Hour)))))
		a.check("shop", "superseded", authn.Read)
		a.check("shop", "new", authn.Read)
		time.Sleep(90 * time.Minute)
		a.check("shop", "new", authn.Read)
		time.Sleep(2 * time.Minute)
		a.assertUses(ever, "shop/a new 2 min", "shop/a superseded 92 min")
		a.assertUses(2, "shop/a new 2 min")
		a.assertUses(1)
	})
}

func TestUses_StayWhenTheKeyringIsUpdated(t *testing.T) {
	key := newKey("shop", "a", issued("new"), issued("superseded"))
	for name, update := range map[string]func(*authn.Keyring) error{
		"update":   func(k *authn.Keyring) error { return k.Update(newKey("shop", "a", issued("new"), access(true, false))) },
		"rotation": func(k *authn.Keyring) error { return k.Update(newKey("shop", "a", issued("newest"), issued("new"))) },
		"relist":   func(k *authn.Keyring) error { return k.Replace([]any{newKey("shop", "a", issued("new"))}, "") },
		"growth": func(k *authn.Keyring) error {
			for i := range 1000 {
				if err := k.Add(newKey("shop", fmt.Sprint("b", i), issued(fmt.Sprint("token ", i)))); err != nil {
					return err
				}
			}
			return k.Update(newKey("shop", "a", issued("new")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newCountingAuthenticator(t, key)
				a.check("shop", "new", authn.Read)
				a.check("shop", "superseded", authn.Read)
				time.Sleep(5 * time.Minute)
				framework.Must(t, update(a.keyring))
				a.assertUses(ever, "shop/a new 5 min")
			})
		})
	}
}

func TestUses_OfADeletedKeyAreNotThoseOfALaterOneWithItsNameAndToken(t *testing.T) {
	for name, recreate := range map[string]func(*authn.Keyring, *v1alpha1.APIKey) error{
		"watch": func(k *authn.Keyring, later *v1alpha1.APIKey) error { return k.Update(later) },
		"list":  func(k *authn.Keyring, later *v1alpha1.APIKey) error { return k.Replace([]any{later}, "") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newCountingAuthenticator(t, newKey("shop", "a", issued("imported")))
				a.check("shop", "imported", authn.Read)
				framework.Must(t, recreate(a.keyring, newKey("shop", "a", issued("imported"), uid("later"))))
				a.assertUses(ever)
			})
		})
	}
}

func TestUses_AreNotNotedUnlessMinutesAreCounted(t *testing.T) {
	a := newUncountedAuthenticator(t, newKey("shop", "a", issued("token")))
	a.check("shop", "token", authn.Read)
	a.assertUses(ever)
}

// countingAuthenticator is an Authenticator, and its Keyring.
type countingAuthenticator struct {
	*testing.T
	*authn.Authenticator
	keyring *authn.Keyring
	tokens  map[token.Digest]string
}

// newCountingAuthenticator returns an Authenticator that counts minutes until the test ends. The test must run in a bubble.
func newCountingAuthenticator(t *testing.T, keys ...*v1alpha1.APIKey) countingAuthenticator {
	t.Helper()
	a := newUncountedAuthenticator(t, keys...)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	go func() { _ = a.CountMinutes(ctx) }()
	synctest.Wait()
	time.Sleep(time.Second) // so that no check is at the same time as a tick
	return a
}

func newUncountedAuthenticator(t *testing.T, keys ...*v1alpha1.APIKey) countingAuthenticator {
	t.Helper()
	keyring, list := authn.NewKeyring(), make([]any, len(keys))
	for i := range keys {
		list[i] = keys[i]
	}
	framework.Must(t, keyring.Replace(list, ""))
	return countingAuthenticator{
		T: t, Authenticator: authn.NewAuthenticator(keyring, 0, clock), keyring: keyring, tokens: map[token.Digest]string{},
	}
}

func (a countingAuthenticator) check(namespace, plaintext string, access authn.Access) {
	a.tokens[token.Sum(plaintext)] = plaintext
	a.Decide(authn.Request{Namespace: namespace, Credential: authn.NewCredential(plaintext), Access: access})
}

// assertUses fails the test unless these are the uses of at most this many minutes ago.
func (a countingAuthenticator) assertUses(minutes uint32, want ...string) {
	a.Helper()
	var got []string
	for use := range a.Uses(minutes) {
		got = append(got, fmt.Sprintf("%s/%s %s %d min", use.Namespace, use.Name, a.tokens[*use.Digest], use.Minutes))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		a.Errorf("the uses of the last %d minutes are %q, not %q", minutes, got, want)
	}
}

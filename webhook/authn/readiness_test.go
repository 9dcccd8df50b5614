// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"testing"
	"testing/synctest"
	"time"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestInvariant4_AnUnsyncedKeyringIsUnavailable(t *testing.T) {
	keyring := authn.NewKeyring()
	authenticator := authn.NewAuthenticator(keyring, 0, clock)
	framework.Must(t, keyring.Add(newKey("shop", "k", issued("t"))))
	framework.Must(t, keyring.Bookmark("7"))
	for _, credential := range []authn.Credential{{}, authn.NewCredential("t"), authn.NewCredential("another"), authn.NewCredential("a b")} {
		verdict := authenticator.Decide(authn.Request{Namespace: "shop", Credential: credential})
		if got, want := outcomeOf(verdict), (outcome{authn.Unavailable, authn.ReasonNotSynced, ""}); got != want {
			t.Errorf("before a list, the verdict is %v, want %v", got, want)
		}
	}
	const want = "the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is installed, " +
		"and that this process may list and watch apikeys.keys.squirrel.dev (last error: none)"
	if err := authenticator.Ready(); err == nil || err.Error() != want {
		t.Errorf("before a list, Ready() = %v, want %s", err, want)
	}

	framework.Must(t, keyring.Replace(nil, "8"))
	expect(t, keyring, "shop", "t", unknown)
	if err := authenticator.Ready(); err != nil {
		t.Errorf("after a list, Ready() = %v", err)
	}
}

func TestInvariant9_MaxStalenessBoundsDecisionsFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey("shop", "k", issued("t"))
		keyring := keyringOf(t, key)
		bounded := authn.NewAuthenticator(keyring, authn.MinStaleness, time.Now)
		unbounded := authn.NewAuthenticator(keyring, 0, time.Now)
		decision := func(a *authn.Authenticator) outcome {
			return outcomeOf(a.Decide(authn.Request{Namespace: "shop", Credential: authn.NewCredential("t")}))
		}
		stale := outcome{authn.Unavailable, authn.ReasonStale, ""}
		for name, event := range map[string]func() error{
			"a bookmark": func() error { return keyring.Bookmark("2") },
			"an add":     func() error { return keyring.Add(newKey("bank", "other", issued("o"))) },
			"an update":  func() error { return keyring.Update(key) },
			"a delete":   func() error { return keyring.Delete(newKey("bank", "other", issued("o"))) },
			"a list":     func() error { return keyring.Replace(objects(key), "3") },
		} {
			time.Sleep(authn.MinStaleness)
			if got := decision(bounded); got != granted("uid-of-k") {
				t.Fatalf("at the bound, before %s: %v", name, got)
			}
			time.Sleep(time.Second)
			if got := decision(bounded); got != stale {
				t.Errorf("beyond the bound, before %s: %v, want %v", name, got, stale)
			}
			const want = "the Kubernetes API has sent nothing for 2m1s, and --max-staleness allows 2m0s: check that it is reachable (last error: none)"
			if err := bounded.Ready(); err == nil || err.Error() != want {
				t.Errorf("beyond the bound, Ready() = %v, want %s", err, want)
			}
			if got := decision(unbounded); got != granted("uid-of-k") || unbounded.Ready() != nil {
				t.Errorf("without a bound: %v, Ready() = %v", got, unbounded.Ready())
			}
			if staleness := keyring.Staleness(time.Now()); staleness != authn.MinStaleness+time.Second {
				t.Errorf("Staleness() = %v", staleness)
			}

			framework.Must(t, event())
			if got := decision(bounded); got != granted("uid-of-k") || bounded.Ready() != nil || keyring.Staleness(time.Now()) != 0 {
				t.Errorf("after %s: %v, Ready() = %v, Staleness() = %v", name, got, bounded.Ready(), keyring.Staleness(time.Now()))
			}
		}
	})
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// calls counts calls, and refuses the Secrets that are to be refused.
type calls struct {
	statusWrites, secretWrites atomic.Int64
	refuse                     func() bool
}

func (c *calls) transport(next http.RoundTripper) http.RoundTripper {
	return &intercept{next: next, answer: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
		switch call {
		case "PUT status":
			c.statusWrites.Add(1)
		case "POST secret":
			c.secretWrites.Add(1)
			if c.refuse != nil && c.refuse() {
				return failure(&metav1.Status{Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
					Message: `admission webhook "v.example.com" denied the request`}, http.Header{}), nil
			}
		}
		return send()
	}}
}

func TestInvariant10_ANewKeyIsIssuedBesideRefusedOnes(t *testing.T) {
	w := newWorld(t)
	var refuse atomic.Bool
	refuse.Store(true)
	c := &calls{refuse: refuse.Load}
	w.startController(c.transport)
	const count = 20
	for i := range count {
		w.createKey(fmt.Sprint("refused-", i))
	}
	for i := range count {
		w.await(fmt.Sprint("refused-", i), v1alpha1.ReasonSecretRefused)
	}
	refuse.Store(false)
	w.createKey("new")
	w.assertIssued(w.await("new", v1alpha1.ReasonIssued), "new-token")
	if writes := c.secretWrites.Load(); writes > 2*count+1 { // each once, and a second time if all this took more than 15 seconds
		t.Errorf("%d Secrets were written for %d refused keys", writes, count)
	}
}

func TestInvariant10_ANewKeyIsIssuedBesideKeysThatExpireAtOnce(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	const count = 200
	expiry := metav1.NewTime(time.Now().Add(time.Hour))
	var creations sync.WaitGroup
	for i := range count {
		creations.Go(func() {
			w.createKey(fmt.Sprint("old-", i), tokenHash(token.Hash(fmt.Sprint("old", i))), func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = &expiry })
		})
	}
	creations.Wait()
	for i := range count {
		w.await(fmt.Sprint("old-", i), v1alpha1.ReasonIssued)
	}
	w.clock.advance(2 * time.Hour)
	for i := range count { // as their timers do
		creations.Go(func() { w.touch(fmt.Sprint("old-", i), "expired") })
	}
	w.createKey("new")
	w.await("new", v1alpha1.ReasonIssued)
	w.createKey("heir", appName("App old-7")) // the end of the former one is recorded for it
	w.await("heir", v1alpha1.ReasonIssued)
	creations.Wait()
}

// A key that cannot be issued keeps no other one from having its app name.
func TestABlockedKeyHoldsNoAppName(t *testing.T) {
	for reason, block := range map[string]func(w *world, c *calls){
		v1alpha1.ReasonTokenHashConflict: func(w *world, _ *calls) {
			w.createKey("owner", tokenHash(token.Hash("shared")))
			w.await("owner", v1alpha1.ReasonIssued)
			w.createKey("blocker", appName("Frontend"), tokenHash(token.Hash("shared")))
		},
		v1alpha1.ReasonSecretConflict: func(w *world, _ *calls) {
			planted := w.plant(w.key("blocker"))
			planted.OwnerReferences = nil
			w.create(planted)
			w.createKey("blocker", appName("Frontend"))
		},
		v1alpha1.ReasonSecretRefused: func(w *world, c *calls) {
			var once atomic.Bool
			c.refuse = func() bool { return !once.Swap(true) }
			w.createKey("blocker", appName("Frontend"))
		},
	} {
		t.Run(reason, func(t *testing.T) {
			w := newWorld(t)
			c := &calls{}
			w.startController(c.transport)
			block(w, c)
			w.await("blocker", reason)
			w.createKey("waiting", appName("Frontend"))
			w.assertIssued(w.await("waiting", v1alpha1.ReasonIssued), "waiting-token")
			w.clock.advance(maxRetryDelay)
			w.touch("blocker", "its time has come")
			if reason != v1alpha1.ReasonTokenHashConflict {
				w.await("blocker", v1alpha1.ReasonAppNameConflict)
			}
			if key := w.get("blocker"); apikey.IsClaimed(key) {
				t.Error("both keys have a token")
			}
		})
	}
}

// TestInvariant2_OneActiveKeyOfManyWhoseSecretsAreRefusedNowAndThen has two controllers that both work. Keys of one name pass each other over.
func TestInvariant2_OneActiveKeyOfManyWhoseSecretsAreRefusedNowAndThen(t *testing.T) {
	w := newWorld(t)
	var tries atomic.Int64
	c := &calls{refuse: func() bool { return tries.Add(1)%4 != 0 }}
	w.startController(c.transport)
	w.startController(c.transport)
	const count = 20
	var creations sync.WaitGroup
	for i := range count {
		creations.Go(func() { w.createKey(fmt.Sprintf("key-%02d", i), appName("Frontend")) })
	}
	creations.Wait()
	holder := ""
	w.eventually("one key is issued, and no other one claims", func() bool {
		active, claims := 0, 0
		for _, key := range w.keys() {
			if apikey.IsIssued(&key) {
				active, holder = active+1, key.Name
			}
			if apikey.IsClaimed(&key) {
				claims++
			}
		}
		if active > 1 {
			t.Fatalf("%d keys are active", active)
		}
		return active == 1 && claims == 1
	})
	w.assertIssued(w.get(holder), holder+"-token")
	w.assertOneHandover(holder)
}

// Of many keys of one name, the next is issued when the holder ends; each other one is written once, to name its new holder.
func TestInvariant10_AHandoverOfANameWakesTheNextAndTellsTheOthersOnce(t *testing.T) {
	w := newWorld(t)
	c := &calls{}
	w.startController(c.transport)
	w.createKey("first", appName("Frontend"))
	w.await("first", v1alpha1.ReasonIssued)
	const count = 100
	for i := range count {
		w.createKey(fmt.Sprintf("key-%03d", i), appName("Frontend"))
	}
	name := func(holder string) func() bool {
		return func() bool {
			named := 0
			for _, key := range w.keys() {
				if len(key.Status.Conditions) > 0 && strings.Contains(key.Status.Conditions[0].Message, fmt.Sprintf("held by APIKey %q", holder)) {
					named++
				}
			}
			return named == count || (holder != "first" && named == count-1)
		}
	}
	w.eventually("all wait for the first", name("first"))
	before := c.statusWrites.Load()
	w.deactivate("first")
	holder := ""
	w.eventually("the next is issued", func() bool {
		for _, key := range w.keys() {
			if key.Name != "first" && apikey.IsIssued(&key) {
				holder = key.Name
			}
		}
		return holder != ""
	})
	w.eventually("the others wait for the next", name(holder))
	if writes := c.statusWrites.Load() - before; writes > count+10 {
		t.Errorf("a handover took %d writes for %d keys", writes, count)
	}
}

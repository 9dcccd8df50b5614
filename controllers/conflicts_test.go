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
	"squirrel.dev/apikey-operator/test/framework"
)

// calls counts the controller's writes, and refuses Secrets if refuse returns true.
type calls struct {
	statusWrites, secretWrites atomic.Int64
	refuse                     func() bool
}

func (c *calls) transport(next http.RoundTripper) http.RoundTripper {
	return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
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

func TestInvariant10_RefusedKeysDoNotDelayANewKey(t *testing.T) {
	f := newFixture(t)
	var refuse atomic.Bool
	refuse.Store(true)
	c := &calls{refuse: refuse.Load}
	f.startController(c.transport)
	const count = 20
	for i := range count {
		f.CreateKey(fmt.Sprint("refused-", i))
	}
	for i := range count {
		f.WaitForReady(fmt.Sprint("refused-", i), v1alpha1.ReasonSecretRefused)
	}
	refuse.Store(false)
	f.CreateKey("new")
	f.assertIssued(f.WaitForReady("new", v1alpha1.ReasonIssued), "new-token")
	if writes := c.secretWrites.Load(); writes > 2*count+1 { // each is retried if the test takes more than 15 seconds
		t.Errorf("%d Secrets were written for %d refused keys", writes, count)
	}
}

func TestInvariant10_KeysThatExpireAtOnceDoNotDelayANewKey(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	const count = 200
	expiry := metav1.NewTime(time.Now().Add(time.Hour))
	var creations sync.WaitGroup
	for i := range count {
		creations.Go(func() {
			f.CreateKey(fmt.Sprint("old-", i), tokenHash(token.Hash(fmt.Sprint("old", i))), func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = &expiry })
		})
	}
	creations.Wait()
	for i := range count {
		f.WaitForReady(fmt.Sprint("old-", i), v1alpha1.ReasonIssued)
	}
	f.clock.advance(2 * time.Hour)
	for i := range count { // like their timers
		creations.Go(func() { f.touch(fmt.Sprint("old-", i), "expired") })
	}
	f.CreateKey("new")
	f.WaitForReady("new", v1alpha1.ReasonIssued)
	f.CreateKey("heir", appName("App old-7")) // the controller records the end of old-7 because heir waits
	f.WaitForReady("heir", v1alpha1.ReasonIssued)
	creations.Wait()
}

func TestReconcile_ABlockedKeyDoesNotReserveItsAppName(t *testing.T) {
	t.Parallel()
	for reason, block := range map[string]func(f *fixture, c *calls){
		v1alpha1.ReasonTokenHashConflict: func(f *fixture, _ *calls) {
			f.CreateKey("owner", tokenHash(token.Hash("shared")))
			f.WaitForReady("owner", v1alpha1.ReasonIssued)
			f.CreateKey("blocker", appName("Frontend"), tokenHash(token.Hash("shared")))
		},
		v1alpha1.ReasonSecretConflict: func(f *fixture, _ *calls) {
			forged := f.forge(f.Key("blocker"))
			forged.OwnerReferences = nil
			f.Create(forged)
			f.CreateKey("blocker", appName("Frontend"))
		},
		v1alpha1.ReasonSecretRefused: func(f *fixture, c *calls) {
			var once atomic.Bool
			c.refuse = func() bool { return !once.Swap(true) }
			f.CreateKey("blocker", appName("Frontend"))
		},
	} {
		t.Run(reason, func(t *testing.T) {
			f := newFixture(t)
			c := &calls{}
			f.startController(c.transport)
			block(f, c)
			f.WaitForReady("blocker", reason)
			f.CreateKey("waiting", appName("Frontend"))
			f.assertIssued(f.WaitForReady("waiting", v1alpha1.ReasonIssued), "waiting-token")
			f.clock.advance(maxBackoff)
			f.touch("blocker", "after its backoff")
			if reason != v1alpha1.ReasonTokenHashConflict {
				f.WaitForReady("blocker", v1alpha1.ReasonAppNameConflict)
			}
			if key := f.GetKey("blocker"); apikey.IsClaimed(key) {
				t.Error("both keys have a token")
			}
		})
	}
}

// TestInvariant2_OneActiveKeyOfManyWhoseSecretsAreSometimesRefused runs two controllers at once. Refused keys do not reserve their app
// name, so that several keys of one name may be on their way to a handover.
func TestInvariant2_OneActiveKeyOfManyWhoseSecretsAreSometimesRefused(t *testing.T) {
	f := newFixture(t)
	var attempts atomic.Int64
	c := &calls{refuse: func() bool { return attempts.Add(1)%4 != 0 }}
	f.startController(c.transport)
	f.startController(c.transport)
	const count = 20
	var creations sync.WaitGroup
	for i := range count {
		creations.Go(func() { f.CreateKey(fmt.Sprintf("key-%02d", i), appName("Frontend")) })
	}
	creations.Wait()
	holder := ""
	// Twice the usual time: a refused key waits for 15 seconds.
	framework.EventuallyWithin(f, 2*framework.Timeout, framework.PollInterval, "one key is issued, and no other has a claim", func() bool {
		active, claims := 0, 0
		for _, key := range f.Keys() {
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
	f.assertIssued(f.GetKey(holder), holder+"-token")
	f.assertOneHandover(holder)
}

// When the holder of an app name ends, the next of many keys is issued. Each other key is written once, to name the new holder.
func TestInvariant10_TheEndOfAHolderEnqueuesTheNextKeyAndWritesTheOthersOnce(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(renameTimeout) // a key that must wait is stalled at once
	c := &calls{}
	f.startController(c.transport)
	f.CreateKey("first", appName("Frontend"))
	f.WaitForReady("first", v1alpha1.ReasonIssued)
	const count = 100
	for i := range count {
		f.CreateKey(fmt.Sprintf("key-%03d", i), appName("Frontend"))
	}
	name := func(holder string) func() bool {
		return func() bool {
			named := 0
			for _, key := range f.Keys() {
				if len(key.Status.Conditions) > 0 && strings.Contains(key.Status.Conditions[0].Message, fmt.Sprintf("held by APIKey %q", holder)) {
					named++
				}
			}
			return named == count || (holder != "first" && named == count-1)
		}
	}
	framework.Eventually(f, "all wait for the first", name("first"))
	before := c.statusWrites.Load()
	f.Deactivate("first")
	holder := ""
	framework.Eventually(f, "the next is issued", func() bool {
		for _, key := range f.Keys() {
			if key.Name != "first" && apikey.IsIssued(&key) {
				holder = key.Name
			}
		}
		return holder != ""
	})
	framework.Eventually(f, "the others wait for the next", name(holder))
	if writes := c.statusWrites.Load() - before; writes > count+10 {
		t.Errorf("the next key took %d writes of %d keys", writes, count)
	}
}

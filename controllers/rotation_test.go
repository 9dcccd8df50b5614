// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

// Times of a rotation.
const (
	acceptanceDelay = 5 * time.Second
	claimLifetime   = 15 * time.Second
)

// callsOfRotating are the controller's calls for the rotation of a key, in order.
var callsOfRotating = []string{"GET secret", "PUT status", "GET secret", "PUT secret", "PUT status"}

func rotation(change func(*v1alpha1.Rotation)) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) {
		if key.Spec.Rotation == nil {
			key.Spec.Rotation = &v1alpha1.Rotation{}
		}
		change(key.Spec.Rotation)
	}
}

func overlap(d time.Duration) func(*v1alpha1.APIKey) {
	return rotation(func(r *v1alpha1.Rotation) { r.Overlap = &metav1.Duration{Duration: d} })
}

func interval(d time.Duration) func(*v1alpha1.APIKey) {
	return rotation(func(r *v1alpha1.Rotation) { r.Interval = &metav1.Duration{Duration: d} })
}

func requestAt(at time.Time) func(*v1alpha1.APIKey) {
	return rotation(func(r *v1alpha1.Rotation) { r.Request = &v1alpha1.RotationRequest{At: metav1.NewTime(at)} })
}

// withoutOverlap ends all former tokens with the requested rotation.
func withoutOverlap(key *v1alpha1.APIKey) { key.Spec.Rotation.Request.Overlap = &metav1.Duration{} }

// issue creates a key and waits until it is issued.
func (f *fixture) issue(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	f.Helper()
	f.CreateKey(name, change...)
	return f.WaitForReady(name, v1alpha1.ReasonIssued)
}

// request requests a rotation now.
func (f *fixture) request(name string, change ...func(*v1alpha1.APIKey)) {
	f.Helper()
	f.UpdateKey(name, func(key *v1alpha1.APIKey) {
		requestAt(f.clock.Now())(key)
		for _, c := range change {
			c(key)
		}
	})
}

// waitForClaim waits until the key has a claim other than the former one.
func (f *fixture) waitForClaim(name string, former ...string) *v1alpha1.APIKey {
	f.Helper()
	var key *v1alpha1.APIKey
	framework.Eventually(f, name+" has a claim", func() bool {
		key = f.GetKey(name)
		claim := apikey.ClaimOf(key)
		return claim != nil && !slices.Contains(former, claim.Hash)
	})
	return key
}

// waitForToken waits until the key has another newest token than before, and no claim.
func (f *fixture) waitForToken(before *v1alpha1.APIKey) *v1alpha1.APIKey {
	f.Helper()
	var key *v1alpha1.APIKey
	framework.Eventually(f, before.Name+" has a new token", func() bool {
		key = f.GetKey(before.Name)
		return apikey.ClaimOf(key) == nil && hashOf(key) != hashOf(before)
	})
	return key
}

// rotate finishes the rotation of a key that is due.
func (f *fixture) rotate(before *v1alpha1.APIKey) *v1alpha1.APIKey {
	f.Helper()
	f.reachHandover(before.Name)
	return f.waitForToken(before)
}

// reachHandover waits for a claim of the key, and lets the time pass until the token is handed over.
func (f *fixture) reachHandover(name string) (claimed string) {
	f.Helper()
	claimed = apikey.ClaimOf(f.waitForClaim(name)).Hash
	f.await(name) // the reconcile that claimed has ended
	f.clock.advance(acceptanceDelay)
	f.touch(name, f.clock.Now().String())
	return claimed
}

// await waits until the controller has reconciled the key once more.
func (f *fixture) await(name string) {
	f.Helper()
	f.touchSpec(name)
	framework.Eventually(f, name+" is reconciled", func() bool {
		key := f.GetKey(name)
		return key.Status.ObservedGeneration == key.Generation
	})
}

func hashOf(key *v1alpha1.APIKey) string { return apikey.NewestToken(key).Hash }

// assertHandedOver checks that the key's Secret holds its newest token, and is the same object as before.
func (f *fixture) assertHandedOver(key *v1alpha1.APIKey, before *corev1.Secret) {
	f.Helper()
	secret := f.Secret(key.Name + "-token")
	switch {
	case secret == nil:
		f.Fatal("the Secret does not exist")
	case before != nil && secret.UID != before.UID:
		f.Error("another Secret replaced the key's Secret")
	case token.Hash(string(secret.Data["token"])) != hashOf(key):
		f.Error("the Secret does not hold the newest token")
	case secret.Annotations["keys.squirrel.dev/token-hash"] != hashOf(key):
		f.Error("the Secret does not have the annotation of the newest token")
	case key.Status.SecretName != secret.Name:
		f.Errorf("status.secretName is %q", key.Status.SecretName)
	}
}

// record is a token record without its times.
type record struct {
	hash                        string
	claimed, accepted, isEnding bool
}

func recordsOf(key *v1alpha1.APIKey) []record {
	var records []record
	for _, r := range key.Status.Tokens {
		records = append(records, record{r.Hash, r.ClaimedAt != nil, r.NotBefore != nil, r.NotAfter != nil})
	}
	return records
}

func (f *fixture) assertRecords(key *v1alpha1.APIKey, want ...record) {
	f.Helper()
	if diff := cmp.Diff(want, recordsOf(key), cmp.AllowUnexported(record{})); diff != "" {
		f.Errorf("the token records (-want +got):\n%s", diff)
	}
}

func newest(hash string) record        { return record{hash, false, true, false} }
func superseded(hash string) record    { return record{hash, false, true, true} }
func acceptedClaim(hash string) record { return record{hash, true, true, false} }
func lostClaim(hash string) record     { return record{hash, true, true, true} }

// assertEnd checks that a superseded token ends this long after the newest one was issued.
func (f *fixture) assertEnd(key *v1alpha1.APIKey, hash string, overlap time.Duration) {
	f.Helper()
	for _, r := range key.Status.Tokens {
		if r.Hash == hash {
			if got := r.NotAfter.Sub(apikey.NewestToken(key).NotBefore.Time); got != overlap {
				f.Errorf("the former token ends %s after the rotation, want %s", got, overlap)
			}
			return
		}
	}
	f.Errorf("the status does not have the former token: %v", key.Status.Tokens)
}

func rotating(reason, message string) map[string]string {
	want := conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted)
	want[v1alpha1.ConditionReconciling] = fmt.Sprintf("True %s: %s", reason, message)
	return want
}

func stuck(reason, message string) map[string]string {
	want := conditions(metav1.ConditionFalse, metav1.ConditionTrue, reason, message)
	want[v1alpha1.ConditionActive] = fmt.Sprintf("True %s: %s", reason, message)
	want[v1alpha1.ConditionStalled] = fmt.Sprintf("True %s: %s", reason, message)
	return want
}

func TestReconcile_RotatesATokenByRequest(t *testing.T) {
	f := newFixture(t)
	observed := &crash{at: -1}
	f.startController(observed.transport)
	before := f.issue("frontend")
	secret := f.Secret("frontend-token")
	observed.mu.Lock()
	observed.calls = nil
	observed.mu.Unlock()

	f.request("frontend")
	claimed := f.waitForClaim("frontend")
	hash := apikey.ClaimOf(claimed).Hash
	f.assertRecords(claimed, newest(hashOf(before)), acceptedClaim(hash)) // before the Secret has it
	f.assertConditions(claimed, rotating(v1alpha1.ReasonRotating, "Handing over the token."))
	f.assertKstatus(claimed, status.InProgressStatus)
	if got := f.Secret("frontend-token").ResourceVersion; got != secret.ResourceVersion {
		t.Error("the Secret was changed before the new token was accepted by all authenticators")
	}

	key := f.waitForToken(before)
	if waited := apikey.NewestToken(key).NotBefore.Sub(apikey.ClaimOf(claimed).NotBefore.Time); waited < acceptanceDelay {
		t.Errorf("the token was handed over %s after it was accepted", waited)
	}
	if hashOf(key) != hash {
		t.Error("the newest token is not the one that was claimed")
	}
	f.assertRecords(key, newest(hash), superseded(hashOf(before)))
	f.assertEnd(key, hashOf(before), 24*time.Hour)
	f.assertHandedOver(key, secret)
	f.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
	f.assertKstatus(key, status.CurrentStatus)
	if handled, at := key.Status.RotationHandled, key.Spec.Rotation.Request.At; handled == nil || !handled.Time.Equal(at.Time) {
		t.Errorf("rotationHandled is %v, want %v", handled, at)
	}
	want := "The key has a new token. The former one is accepted until " + key.Status.Tokens[1].NotAfter.UTC().Format(time.RFC3339) + "."
	if eventType, note := f.waitForEvent("frontend", "Rotated"); eventType != corev1.EventTypeNormal || note != want {
		t.Errorf("the event is %s: %s, want %s", eventType, note, want)
	}

	f.await("frontend")
	observed.mu.Lock()
	defer observed.mu.Unlock()
	if diff := cmp.Diff(append(slices.Clone(callsOfRotating), "PUT status"), observed.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(key.Status.Tokens, f.GetKey("frontend").Status.Tokens); diff != "" {
		t.Errorf("the tokens change after the rotation (-before +after):\n%s", diff)
	}
}

func TestReconcile_RotatesATokenAtEachInterval(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.issue("frontend", interval(2*time.Hour), overlap(time.Hour))
	for range 3 {
		due := apikey.NewestToken(key).NotBefore.Add(2 * time.Hour)
		if next := key.Status.NextRotationAt; next == nil || !next.Time.Equal(due) {
			t.Fatalf("nextRotationAt is %v, want %v", next, due)
		}
		f.clock.advance(2*time.Hour - time.Minute)
		f.await("frontend")
		if early := f.GetKey("frontend"); apikey.ClaimOf(early) != nil {
			t.Fatal("the token is rotated before the interval has passed")
		}
		former := key
		f.clock.advance(time.Minute)
		f.touch("frontend", f.clock.Now().String())
		key = f.rotate(former)
		f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(former))) // the one before has ended and is dropped
		f.assertEnd(key, hashOf(former), time.Hour)
		f.assertHandedOver(key, nil)
		if handled := key.Status.RotationHandled; handled == nil || !handled.Before(apikey.NewestToken(key).NotBefore) {
			t.Errorf("rotationHandled is %v, want a time before the rotation", handled)
		}
	}
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.Rotation = nil })
	framework.Eventually(f, "nextRotationAt is removed", func() bool { return f.GetKey("frontend").Status.NextRotationAt == nil })
}

// A request of Git may be older than the key, in the future, or be applied again and again.
func TestInvariant3_OnlyANewRequestMakesAnotherToken(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	at := f.clock.Now().Add(-time.Hour).Truncate(time.Second)
	before := f.issue("frontend", requestAt(at))
	assertUnchanged := func(what string) {
		t.Helper()
		f.await("frontend")
		if diff := cmp.Diff(before.Status.Tokens, f.GetKey("frontend").Status.Tokens); diff != "" {
			t.Fatalf("%s, the tokens change (-before +after):\n%s", what, diff)
		}
	}
	assertUnchanged("with a request that is older than the key")
	if handled := before.Status.RotationHandled; handled == nil || !handled.Time.Equal(at) {
		t.Errorf("rotationHandled is %v, want %v", handled, at)
	}
	f.UpdateKey("frontend", requestAt(at.Add(-time.Minute)))
	assertUnchanged("with a request before the one that was handled")
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.Rotation = nil })
	assertUnchanged("without the request")
	f.UpdateKey("frontend", requestAt(at))
	assertUnchanged("with the request again")
	f.UpdateKey("frontend", requestAt(f.clock.Now().Add(time.Hour)))
	assertUnchanged("with a request in the future")
	if next, want := f.GetKey("frontend").Status.NextRotationAt, f.GetKey("frontend").Spec.Rotation.Request.At; next == nil || !next.Equal(&want) {
		t.Errorf("nextRotationAt is %v, want %v", next, want)
	}
	f.clock.advance(time.Hour)
	f.touch("frontend", "the time of the request has come")
	before = f.rotate(before)
	assertUnchanged("after the rotation")
	framework.Must(f, f.Env.Client.Delete(t.Context(), f.Secret("frontend-token")))
	assertUnchanged("after the Secret was deleted")
	if f.Secret("frontend-token") != nil {
		t.Error("the deleted Secret exists again")
	}
}

func TestReconcile_AFractionOfASecondInARequestDoesNotCount(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	before := f.issue("frontend")
	second := f.clock.Now().Truncate(time.Second)
	apply := func(fraction string) {
		t.Helper()
		patch := fmt.Sprintf(`{"spec":{"rotation":{"request":{"at":%q}}}}`, second.UTC().Format("2006-01-02T15:04:05")+fraction+"Z")
		framework.Must(f, f.Env.Client.Patch(t.Context(), f.GetKey("frontend"), client.RawPatch("application/merge-patch+json", []byte(patch))))
	}
	apply(".123456789")
	key := f.rotate(before)
	if handled := key.Status.RotationHandled; !handled.Time.Equal(second) {
		t.Errorf("rotationHandled is %v, want %v", handled, second)
	}
	apply(".9")
	f.await("frontend")
	if got := f.GetKey("frontend"); hashOf(got) != hashOf(key) || apikey.ClaimOf(got) != nil {
		t.Error("another fraction of the same second rotates the token again")
	}
}

// The overlap of the request is that of the rotation even if the request is removed in between, as by a tool that restores the state of Git.
func TestReconcile_FinishesARotationWhoseRequestWasRemoved(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	before := f.issue("frontend")
	f.request("frontend", withoutOverlap)
	f.waitForClaim("frontend")
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.Rotation = nil })
	key := f.rotate(before)
	f.assertHandedOver(key, nil)
	f.waitForEvent("frontend", "Rotated")
	framework.Eventually(f, "the former token is dropped", func() bool { return len(f.GetKey("frontend").Status.Tokens) == 1 })
	if _, note := f.waitForEvent("frontend", "Rotated"); note != "The key has a new token. The former one is no longer accepted." {
		t.Errorf("the note of the event is %q", note)
	}
}

func TestReconcile_RotatesTwiceWithinTheOverlapAndWaitsWhenTheListIsFull(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	first := f.issue("frontend")
	key := first
	want := []record{superseded(hashOf(first))}
	for range apikey.MaxTokens - 1 {
		f.request("frontend")
		key = f.rotate(key)
		f.assertRecords(key, append([]record{newest(hashOf(key))}, want...)...)
		want = append([]record{superseded(hashOf(key))}, want...)
	}
	end := key.Status.Tokens[apikey.MaxTokens-1].NotAfter.UTC()
	f.request("frontend")
	full := fmt.Sprintf("Waiting until %s, when a superseded token ends: a key has at most 5 tokens. "+
		"To rotate earlier, shorten spec.rotation.overlap. After a leak, rotate with an overlap of 0s, which does not wait.",
		end.Format(time.RFC3339))
	framework.Eventually(f, "the rotation waits", func() bool {
		return meta.IsStatusConditionTrue(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionReconciling)
	})
	waiting := f.GetKey("frontend")
	f.assertConditions(waiting, rotating(v1alpha1.ReasonRotating, full))
	f.assertKstatus(waiting, status.InProgressStatus)

	f.clock.advance(end.Sub(f.clock.Now()) + time.Second)
	f.touch("frontend", "a superseded token has ended")
	rotated := f.rotate(key)
	if slices.ContainsFunc(rotated.Status.Tokens, func(r v1alpha1.TokenRecord) bool { return r.Hash == hashOf(first) }) {
		t.Error("the status has the token that has ended")
	}
	f.assertHandedOver(rotated, nil)
}

// fillTokens rotates a minted key until its list of tokens is full.
func (f *fixture) fillTokens(name string) *v1alpha1.APIKey {
	f.Helper()
	key := f.issue(name)
	for range apikey.MaxTokens - 1 {
		f.request(name)
		key = f.rotate(key)
	}
	return key
}

// A leaked token must not stay accepted because the list is full. The rotation begins at once, although another one waits.
func TestReconcile_ARequestWithoutOverlapDoesNotWaitForAFullList(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	before := f.fillTokens("frontend")
	f.request("frontend")
	framework.Eventually(f, "the rotation waits", func() bool {
		return meta.IsStatusConditionTrue(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionReconciling)
	})
	f.clock.advance(time.Second) // a request of the same second would be the same
	f.request("frontend", withoutOverlap)
	claimed := f.waitForClaim("frontend")
	hash := apikey.ClaimOf(claimed).Hash
	kept := before.Status.Tokens[:apikey.MaxTokens-1]
	f.assertRecords(claimed, newest(kept[0].Hash), superseded(kept[1].Hash), superseded(kept[2].Hash), superseded(kept[3].Hash), acceptedClaim(hash))
	key := f.rotate(before)
	if hashOf(key) != hash {
		t.Error("the newest token is not the one that was claimed")
	}
	f.assertHandedOver(key, nil)
	for _, record := range key.Status.Tokens[1:] {
		if record.NotAfter.After(f.clock.Now()) {
			t.Errorf("a former token is accepted until %v", record.NotAfter)
		}
	}
}

// The full list loses no other token when the rotation is tried again.
func TestReconcile_ARefusedRotationWithoutOverlapDropsOneToken(t *testing.T) {
	f := newFixture(t)
	var refuse atomic.Bool
	f.startController(refuseUpdates(&refuse))
	before := f.fillTokens("frontend")
	kept := recordsOf(before)[:apikey.MaxTokens-1]
	refuse.Store(true)
	f.request("frontend", withoutOverlap)
	refused := f.reachHandover("frontend")
	f.assertRecords(f.WaitForReady("frontend", v1alpha1.ReasonSecretRefused), kept...)
	f.clock.advance(maxBackoff)
	f.touch("frontend", "retry")
	claimed := f.waitForClaim("frontend", refused)
	f.assertRecords(claimed, append(slices.Clone(kept), acceptedClaim(apikey.ClaimOf(claimed).Hash))...)
	refuse.Store(false)
	key := f.rotate(before)
	f.assertHandedOver(key, nil)
	for _, record := range key.Status.Tokens[1:] {
		if record.NotAfter.After(f.clock.Now()) {
			t.Errorf("a former token is accepted until %v", record.NotAfter)
		}
	}
}

// An imported key has no requests: its owner declares the overlap and the new hash at once.
func TestReconcile_AnImportedTokenWithoutOverlapDoesNotWaitForAFullList(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.issue("frontend", tokenHash(token.Hash("0")))
	for i := range apikey.MaxTokens - 1 {
		former := key
		f.UpdateKey("frontend", tokenHash(token.Hash(strconv.Itoa(i+1))))
		key = f.waitForToken(former)
	}
	f.UpdateKey("frontend", tokenHash(token.Hash("waits")))
	framework.Eventually(f, "the rotation waits", func() bool {
		return meta.IsStatusConditionTrue(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionReconciling)
	})
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) {
		tokenHash(token.Hash("last"))(key)
		overlap(0)(key)
	})
	last := f.waitForToken(key)
	if hashOf(last) != token.Hash("last") {
		t.Error("the declared token is not the newest one")
	}
	framework.Eventually(f, "the former tokens are dropped", func() bool { return len(f.GetKey("frontend").Status.Tokens) == 1 })
}

func TestReconcile_AShorterOverlapEndsSupersededTokensEarlier(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	before := f.issue("frontend", overlap(10*time.Hour))
	f.request("frontend")
	key := f.rotate(before)
	f.assertEnd(key, hashOf(before), 10*time.Hour)
	f.UpdateKey("frontend", overlap(20*time.Hour))
	f.await("frontend")
	f.assertEnd(f.GetKey("frontend"), hashOf(before), 10*time.Hour)
	f.UpdateKey("frontend", overlap(2*time.Hour))
	f.await("frontend")
	f.assertEnd(f.GetKey("frontend"), hashOf(before), 2*time.Hour)

	f.clock.advance(2*time.Hour - time.Minute)
	f.await("frontend")
	f.assertRecords(f.GetKey("frontend"), newest(hashOf(key)), superseded(hashOf(before)))
	f.clock.advance(time.Minute)
	f.touch("frontend", "the overlap has passed")
	framework.Eventually(f, "the record is dropped", func() bool { return len(f.GetKey("frontend").Status.Tokens) == 1 })
}

// A user sets an overlap of 0 because the former token has leaked, while the controller waits to write the Secret again.
func TestReconcile_AShorterOverlapTakesEffectWhileARotationIsStuck(t *testing.T) {
	f := newFixture(t)
	var refuse atomic.Bool
	f.startController(refuseUpdates(&refuse))
	before := f.issue("frontend")
	f.request("frontend")
	key := f.rotate(before)
	refuse.Store(true)
	f.request("frontend")
	f.reachHandover("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonSecretRefused)
	f.UpdateKey("frontend", overlap(0))
	framework.Eventually(f, "the superseded token has ended", func() bool {
		tokens := f.GetKey("frontend").Status.Tokens
		return len(tokens) == 1 || !tokens[1].NotAfter.After(f.clock.Now())
	})
	if got := f.GetKey("frontend"); hashOf(got) != hashOf(key) {
		t.Error("the token changed")
	}
}

// refuseUpdates refuses the updates of Secrets while the value is true.
func refuseUpdates(refuse *atomic.Bool) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call == "PUT secret" && refuse.Load() {
				return failure(&metav1.Status{
					Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
					Message: `admission webhook "v.example.com" denied the request: sq_repeated`,
				}, http.Header{}), nil
			}
			return send()
		}}
	}
}

func TestReconcile_ARefusedUpdateOfTheSecretStallsTheRotation(t *testing.T) {
	f := newFixture(t)
	var refuse atomic.Bool
	refuse.Store(true)
	f.startController(refuseUpdates(&refuse))
	before := f.issue("frontend")
	f.request("frontend")
	refused := f.reachHandover("frontend")
	key := f.WaitForReady("frontend", v1alpha1.ReasonSecretRefused)
	const message = `Secret "frontend-token" was refused (admission webhook "v.example.com" denied the request): allow the controller to update it. ` +
		`The controller retries at intervals that grow from 15s to 5m.`
	f.assertConditions(key, stuck(v1alpha1.ReasonSecretRefused, message))
	f.assertKstatus(key, status.FailedStatus)
	f.assertRecords(key, newest(hashOf(before))) // no client can have the token that was refused
	if key.Status.RotationHandled != nil {
		t.Errorf("rotationHandled is %v", key.Status.RotationHandled)
	}
	if eventType, note := f.waitForEvent("frontend", v1alpha1.ReasonSecretRefused); eventType != corev1.EventTypeWarning || note != message {
		t.Errorf("the event is %s: %s", eventType, note)
	}

	refuse.Store(false)
	f.clock.advance(maxBackoff)
	f.touch("frontend", "no longer refused")
	claimed := f.waitForClaim("frontend", refused)
	f.assertConditions(claimed, stuck(v1alpha1.ReasonSecretRefused, message)) // until the attempt has succeeded
	rotated := f.rotate(before)
	f.assertRecords(rotated, newest(hashOf(rotated)), superseded(hashOf(before)))
	f.assertHandedOver(rotated, nil)
	f.assertConditions(rotated, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
}

func TestReconcile_ARefusedRotationEndsWithItsRequest(t *testing.T) {
	f := newFixture(t)
	var refuse atomic.Bool
	refuse.Store(true)
	f.startController(refuseUpdates(&refuse))
	before := f.issue("frontend")
	f.request("frontend")
	f.reachHandover("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonSecretRefused)
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.Rotation = nil })
	key := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.assertRecords(key, newest(hashOf(before)))
	f.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
}

const changedSecret = `Secret "frontend-token" was not written for this key, or was changed since: delete it if it is unused. ` +
	`The controller then creates it with the new token. The controller retries at intervals that grow from 15s to 5m.`

// A Secret that holds no token of the key is another user's: it is found before the claim.
func TestReconcile_AForeignOrEditedSecretStallsTheRotation(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f *fixture, secret *corev1.Secret){
		"edited": func(f *fixture, secret *corev1.Secret) {
			secret.Data["token"] = []byte(token.New())
			framework.Must(f, f.Env.Client.Update(f.Context(), secret))
		},
		"foreign": func(f *fixture, secret *corev1.Secret) {
			framework.Must(f, f.Env.Client.Delete(f.Context(), secret))
			f.Create(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: secret.Name}, Data: map[string][]byte{"token": secret.Data["token"]},
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startController(nil)
			before := f.issue("frontend")
			change(f, f.Secret("frontend-token"))
			secret := f.Secret("frontend-token")
			f.request("frontend")
			key := f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict)
			f.assertConditions(key, stuck(v1alpha1.ReasonSecretConflict, changedSecret))
			f.assertRecords(key, newest(hashOf(before)))
			if f.Secret("frontend-token").ResourceVersion != secret.ResourceVersion {
				t.Error("the Secret was changed")
			}

			framework.Must(f, f.Env.Client.Delete(t.Context(), secret))
			f.clock.advance(maxBackoff)
			f.touch("frontend", "the Secret was deleted")
			f.assertHandedOver(f.rotate(before), nil)
		})
	}
}

// A Secret that must be replaced keeps its name until its finalizers are removed. Until then, no client can have a new token.
func TestReconcile_AFinalizerOfTheSecretStallsTheRotation(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change  func(f *fixture, secret *corev1.Secret)
		isFound bool // before the claim
	}{
		"being deleted": {isFound: true, change: func(f *fixture, secret *corev1.Secret) {
			framework.Must(f, f.Env.Client.Delete(f.Context(), secret))
		}},
		"immutable": {change: func(f *fixture, secret *corev1.Secret) {
			secret.Immutable = new(true)
			framework.Must(f, f.Env.Client.Update(f.Context(), secret))
		}},
		"without its owner": {change: func(f *fixture, secret *corev1.Secret) {
			secret.OwnerReferences = nil
			framework.Must(f, f.Env.Client.Update(f.Context(), secret))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startController(nil)
			before := f.issue("frontend")
			secret := f.Secret("frontend-token")
			secret.Finalizers = []string{"example.com/keep"}
			framework.Must(f, f.Env.Client.Update(t.Context(), secret))
			test.change(f, secret)
			f.request("frontend")
			if !test.isFound {
				f.reachHandover("frontend")
			}
			key := f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict)
			f.assertConditions(key, stuck(v1alpha1.ReasonSecretConflict, `Secret "frontend-token" is being deleted, and its finalizers `+
				`(example.com/keep) keep it: remove them, or wait until the tool that set them does. `+
				`The controller retries at intervals that grow from 15s to 5m.`))
			f.assertRecords(key, newest(hashOf(before)))

			secret = f.Secret("frontend-token")
			secret.Finalizers = nil
			framework.Must(f, f.Env.Client.Update(t.Context(), secret))
			f.clock.advance(maxBackoff)
			f.touch("frontend", "the finalizer was removed")
			f.assertHandedOver(f.rotate(before), nil)
		})
	}
}

// The Secret changes between the claim and the handover.
func TestReconcile_HandsOverARotationWhateverHappensToTheSecret(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change    func(f *fixture, secret *corev1.Secret)
		isReplace bool // whether another Secret replaces it
		isStuck   bool
	}{
		"deleted": {change: func(f *fixture, secret *corev1.Secret) {
			framework.Must(f, f.Env.Client.Delete(f.Context(), secret))
		}, isReplace: true},
		"given more data, labels and annotations": {change: func(f *fixture, secret *corev1.Secret) {
			secret.Data["user"], secret.Labels = []byte("me"), map[string]string{"a": "b"}
			secret.Annotations["c"] = "d"
			framework.Must(f, f.Env.Client.Update(f.Context(), secret))
		}},
		"made immutable, as by an earlier version": {change: func(f *fixture, secret *corev1.Secret) {
			secret.Immutable = new(true)
			framework.Must(f, f.Env.Client.Update(f.Context(), secret))
		}, isReplace: true},
		"without its owner": {change: func(f *fixture, secret *corev1.Secret) {
			secret.OwnerReferences = nil
			framework.Must(f, f.Env.Client.Update(f.Context(), secret))
		}, isReplace: true},
		"given another token": {change: func(f *fixture, secret *corev1.Secret) {
			secret.Data["token"] = []byte(token.New())
			framework.Must(f, f.Env.Client.Update(f.Context(), secret))
		}, isStuck: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startController(nil)
			before := f.issue("frontend", func(key *v1alpha1.APIKey) {
				key.Spec.Secret = &v1alpha1.TokenSecret{Labels: map[string]v1alpha1.LabelValue{"team": "shop"}}
			})
			f.request("frontend")
			f.waitForClaim("frontend")
			test.change(f, f.Secret("frontend-token"))
			changed := f.Secret("frontend-token")
			f.reachHandover("frontend")
			if test.isStuck {
				key := f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict)
				f.assertRecords(key, newest(hashOf(before)))
				f.assertConditions(key, stuck(v1alpha1.ReasonSecretConflict, changedSecret))
				if f.Secret("frontend-token").ResourceVersion != changed.ResourceVersion {
					t.Error("the Secret was changed")
				}
				return
			}
			key := f.waitForToken(before)
			secret := f.Secret("frontend-token")
			if test.isReplace {
				f.assertHandedOver(key, nil)
				if changed != nil && secret.UID == changed.UID {
					t.Error("the Secret was updated")
				}
				if secret.Labels["team"] != "shop" || secret.Immutable != nil || len(secret.OwnerReferences) != 1 {
					t.Errorf("the new Secret is %+v", secret.ObjectMeta)
				}
				return
			}
			f.assertHandedOver(key, changed)
			for what, kept := range map[string]bool{
				"data": string(secret.Data["user"]) == "me", "labels": secret.Labels["a"] == "b", "annotations": secret.Annotations["c"] == "d",
			} {
				if !kept {
					t.Errorf("the %s that a user added are lost", what)
				}
			}
		})
	}
}

func TestInvariant3_OneTokenOfARotationAfterACrashAtAnyCall(t *testing.T) {
	t.Parallel()
	for at, call := range callsOfRotating {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %s after=%v", at, call, after), func(t *testing.T) {
				f := newFixture(t)
				stopFirst := f.startController(nil)
				before := f.issue("frontend")
				secret := f.Secret("frontend-token")
				stopFirst()
				crash := &crash{at: at, after: after, happen: make(chan struct{})}
				stop := f.startController(crash.transport)
				f.request("frontend")
				<-crash.happen
				stop()
				left := f.GetKey("frontend")
				written := token.Hash(string(f.Secret("frontend-token").Data["token"]))

				f.clock.advance(claimLifetime)
				f.startController(nil)
				var key *v1alpha1.APIKey
				switch claim := apikey.ClaimOf(left); {
				case hashOf(left) != hashOf(before), claim != nil && claim.Hash == written: // it was handed over
					key = f.waitForToken(before)
					if hashOf(key) != written {
						t.Error("the token that was handed over is not the newest one")
					}
					f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before)))
				case claim != nil: // its token is lost
					f.waitForClaim("frontend", claim.Hash)
					key = f.rotate(before)
					f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before)), lostClaim(claim.Hash))
					if end := key.Status.Tokens[2].NotAfter; end.Before(new(metav1.NewTime(f.clock.Now().Add(59 * time.Minute)))) {
						t.Errorf("the lost token is accepted until %v only", end)
					}
					f.waitForEvent("frontend", "Reissued")
				default:
					key = f.rotate(before)
					f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before)))
				}
				f.assertHandedOver(key, secret)
				f.await("frontend")
				if got := f.GetKey("frontend"); hashOf(got) != hashOf(key) || apikey.ClaimOf(got) != nil {
					t.Error("the token was rotated again")
				}
			})
		}
	}
}

// A user has read the new token and deleted the Secret, and then the controller stops before it can record that.
func TestInvariant4_ATokenThatMayHaveBeenReadStaysAccepted(t *testing.T) {
	f := newFixture(t)
	stopFirst := f.startController(nil)
	before := f.issue("frontend", overlap(time.Minute))
	stopFirst()
	crash := &crash{at: len(callsOfRotating) - 1, happen: make(chan struct{})}
	stop := f.startController(crash.transport)
	f.request("frontend")
	claim := apikey.ClaimOf(f.waitForClaim("frontend")).Hash
	<-crash.happen
	stop()
	revealed := f.Secret("frontend-token")
	if token.Hash(string(revealed.Data["token"])) != claim {
		t.Fatal("the Secret does not hold the claimed token")
	}
	framework.Must(f, f.Env.Client.Delete(t.Context(), revealed))

	f.startController(nil)
	f.waitForMessageOfRotation("frontend", "Waiting for the end of an earlier handover.")
	f.clock.advance(claimLifetime)
	f.touch("frontend", "the claim is void")
	f.waitForClaim("frontend", claim)
	key := f.rotate(before)
	f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before)), lostClaim(claim))
	if end := key.Status.Tokens[2].NotAfter; end.Before(new(metav1.NewTime(f.clock.Now().Add(59 * time.Minute)))) {
		t.Errorf("the token that was read is accepted until %v only", end)
	}
	const want = "A controller stopped during the rotation, and its token is not in the Secret: the controller mints a new one. " +
		"The other token is superseded, because a client may have it."
	if eventType, note := f.waitForEvent("frontend", "Reissued"); eventType != corev1.EventTypeWarning || note != want {
		t.Errorf("the event is %s: %s", eventType, note)
	}
	f.assertHandedOver(key, nil)
}

func (f *fixture) waitForMessageOfRotation(name, message string) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("%s has the message %q", name, message), func() bool {
		rotating := meta.FindStatusCondition(f.GetKey(name).Status.Conditions, v1alpha1.ConditionReconciling)
		return rotating != nil && rotating.Message == message
	})
}

func TestInvariant3_TwoControllersRotateAKeyOnce(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.startController(nil)
	const count = 5
	before := make([]*v1alpha1.APIKey, count)
	for i := range count {
		before[i] = f.issue(fmt.Sprint("key-", i))
	}
	for i := range count {
		f.request(before[i].Name)
	}
	for i := range count {
		key := f.waitForToken(before[i])
		f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before[i])))
		f.assertHandedOver(key, nil)
	}
}

// The process that claimed does not hand over in time, because it waited for a worker or was paused. It renews its claim, even a void one.
func TestInvariant3_AHandoverThatIsLateRenewsItsClaim(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]time.Duration{
		"a little": acceptanceDelay, "for longer than the timeout": 2 * acceptanceDelay, "void": 2 * claimLifetime,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startController(nil)
			before := f.issue("frontend")
			f.request("frontend")
			claim := *apikey.ClaimOf(f.waitForClaim("frontend"))
			f.await("frontend")
			f.clock.advance(acceptanceDelay + late - time.Second)
			f.touch("frontend", "late")
			key := f.waitForToken(before)
			f.assertRecords(key, newest(claim.Hash), superseded(hashOf(before)))
			f.assertHandedOver(key, nil)
		})
	}
}

// Another controller leads by then, and has replaced the claim.
func TestInvariant3_AHandoverThatIsLateYieldsToAnotherController(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	before := f.issue("frontend")
	f.request("frontend")
	late := apikey.ClaimOf(f.waitForClaim("frontend")).Hash
	f.await("frontend")
	stop()
	f.clock.advance(acceptanceDelay)
	f.startController(nil)
	f.touch("frontend", "late")
	f.waitForMessageOfRotation("frontend", "Waiting for the end of an earlier handover.")
	f.clock.advance(claimLifetime)
	f.touch("frontend", "void")
	f.waitForClaim("frontend", late)
	key := f.rotate(before)
	f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before)), lostClaim(late))
	f.assertHandedOver(key, nil)
}

// The API server takes long to store the claim, or to send the response. The token of the claim is not lost.
func TestInvariant3_ASlowClaimIsHandedOver(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{acceptanceDelay - time.Second, acceptanceDelay + time.Second, claimLifetime - acceptanceDelay - time.Second} {
		t.Run(took.String(), func(t *testing.T) {
			f := newFixture(t)
			var slowOnce sync.Once
			var isSlow atomic.Bool
			f.startController(func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
					response, err := send()
					if call == "PUT status" && isSlow.Load() {
						slowOnce.Do(func() { f.clock.advance(took) })
					}
					return response, err
				}}
			})
			before := f.issue("frontend")
			secret := f.Secret("frontend-token")
			isSlow.Store(true)
			f.request("frontend")
			claimed := apikey.ClaimOf(f.waitForClaim("frontend"))
			framework.Eventually(f, "the claim is renewed", func() bool {
				renewed := apikey.ClaimOf(f.GetKey("frontend"))
				return renewed.Hash == claimed.Hash && claimed.NotBefore.Before(renewed.ClaimedAt)
			})
			f.reachHandover("frontend")
			key := f.waitForToken(before)
			f.assertRecords(key, newest(claimed.Hash), superseded(hashOf(before)))
			f.assertHandedOver(key, secret)
		})
	}
}

// The response to the update is lost, and the update had its effect or not.
func TestInvariant3_OneTokenOfARotationIfAResponseIsLost(t *testing.T) {
	t.Parallel()
	for _, arrives := range []bool{true, false} {
		t.Run(fmt.Sprint("arrives=", arrives), func(t *testing.T) {
			f := newFixture(t)
			var loseOnce sync.Once
			f.startController(func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (response *http.Response, err error) {
					lost := false
					if call == "PUT secret" {
						loseOnce.Do(func() { lost = true })
					}
					if !lost || arrives {
						response, err = send()
					}
					if lost {
						if response != nil {
							response.Body.Close()
						}
						return nil, errInjected
					}
					return response, err
				}}
			})
			before := f.issue("frontend")
			secret := f.Secret("frontend-token")
			f.request("frontend")
			claim := f.reachHandover("frontend")
			key := f.waitForToken(before)
			f.assertRecords(key, newest(claim), superseded(hashOf(before)))
			f.assertHandedOver(key, secret)
		})
	}
}

// The first update of the Secret may arrive later, so the claim stays although the second one is refused.
func TestInvariant4_AClaimStaysIfItsTokenMayBeWrittenLater(t *testing.T) {
	f := newFixture(t)
	var isDescribed, isRefused atomic.Bool
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			if call != "PUT secret" {
				return send()
			}
			switch {
			case !isDescribed.Load():
				return nil, errInjected
			case isRefused.CompareAndSwap(false, true):
				return failure(&metav1.Status{
					Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
				}, http.Header{}), nil
			default:
				return send()
			}
		}}
	})
	before := f.issue("frontend")
	f.request("frontend")
	claim := f.reachHandover("frontend")
	f.waitForMessageOfRotation("frontend", "The controller could not hand over the token (no response) and retries.")
	isDescribed.Store(true)
	f.clock.advance(time.Second)
	f.touch("frontend", "retry")
	framework.Eventually(f, "a later update is refused", isRefused.Load)
	f.await("frontend")
	f.clock.advance(claimLifetime)
	f.touch("frontend", "the claim is void")
	f.waitForClaim("frontend", claim)
	key := f.rotate(before)
	f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before)), lostClaim(claim))
	f.assertHandedOver(key, nil)
}

// A proxy repeats the update. The second one conflicts with the first, whose token a client then reads.
func TestInvariant4_AClaimStaysIfTheWriteOfItsTokenWasRepeated(t *testing.T) {
	f := newFixture(t)
	var updates atomic.Int32
	f.startController(func(next http.RoundTripper) http.RoundTripper {
		return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
			switch response, err := send(); {
			case call == "PUT secret" && updates.Add(1) == 1:
				framework.Must(t, f.Env.Client.Delete(t.Context(), f.Secret("frontend-token")))
				f.Create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "frontend-token"}})
				return failure(&metav1.Status{
					Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonConflict,
				}, http.Header{}), nil
			default:
				return response, err
			}
		}}
	})
	before := f.issue("frontend")
	f.request("frontend")
	claim := f.reachHandover("frontend")
	framework.Eventually(f, "the Secret is updated", func() bool { return updates.Load() == 1 })
	f.clock.advance(time.Second)
	f.touch("frontend", "retry")
	f.WaitForReady("frontend", v1alpha1.ReasonSecretConflict)
	f.assertRecords(f.GetKey("frontend"), newest(hashOf(before)), acceptedClaim(claim))
}

func TestReconcile_AKeyThatEndsDuringARotation(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	before := f.issue("frontend")
	f.request("frontend")
	claimed := f.waitForClaim("frontend")
	f.Deactivate("frontend")
	key := f.WaitForReady("frontend", v1alpha1.ReasonDeactivated)
	f.assertConditions(key, conditions(metav1.ConditionTrue, metav1.ConditionFalse, v1alpha1.ReasonDeactivated, deactivated))
	f.clock.advance(acceptanceDelay)
	f.await("frontend")
	f.assertRecords(f.GetKey("frontend"), newest(hashOf(before)), acceptedClaim(apikey.ClaimOf(claimed).Hash))
	if f.Secret("frontend-token") != nil || f.GetKey("frontend").Status.SecretName != "" {
		t.Error("the Secret of a key that has ended exists")
	}
}

func TestReconcile_TheTTLOfTheSecretBeginsAgainWithARotation(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	before := f.issue("frontend", func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
	})
	f.clock.advance(2 * time.Hour)
	f.touch("frontend", "the ttl has passed")
	framework.Eventually(f, "the Secret is deleted", func() bool {
		return f.Secret("frontend-token") == nil && f.GetKey("frontend").Status.SecretName == ""
	})
	f.request("frontend")
	key := f.rotate(before)
	f.assertHandedOver(key, nil)
	f.clock.advance(59 * time.Minute)
	f.await("frontend")
	f.assertHandedOver(f.GetKey("frontend"), nil)
	f.clock.advance(2 * time.Minute)
	f.touch("frontend", "the ttl has passed again")
	framework.Eventually(f, "the Secret is deleted", func() bool { return f.Secret("frontend-token") == nil })
}

func importedConditions() map[string]string {
	return conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedImported)
}

func TestReconcile_ReplacesAnImportedToken(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	first, second := token.Hash("first"), token.Hash("second")
	replaceBy := func(hash, hint string) {
		f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.TokenHash, key.Spec.TokenHint = hash, hint })
	}
	before := f.issue("frontend", tokenHash(first), overlap(time.Hour), func(key *v1alpha1.APIKey) { key.Spec.TokenHint = "first" })
	replaceBy(second, "second")
	key := f.waitForToken(before)
	f.assertRecords(key, newest(second), superseded(first))
	f.assertEnd(key, first, time.Hour)
	if key.Status.Tokens[0].Hint != "second" || key.Status.Tokens[1].Hint != "first" || key.Status.SecretName != "" {
		t.Errorf("the tokens are %v, the Secret is %q", key.Status.Tokens, key.Status.SecretName)
	}
	f.assertConditions(key, importedConditions())
	f.waitForEvent("frontend", "Rotated")

	f.clock.advance(time.Minute)
	replaceBy(first, "first") // the owner returns to the former token
	back := f.waitForToken(key)
	f.assertRecords(back, newest(first), superseded(second))
	f.assertEnd(back, second, time.Hour)

	f.clock.advance(time.Hour)
	f.touch("frontend", "the overlap has passed")
	framework.Eventually(f, "the record is dropped", func() bool { return len(f.GetKey("frontend").Status.Tokens) == 1 })
	f.assertRecords(f.GetKey("frontend"), newest(first))
}

func TestReconcile_AnImportedTokenOfAnotherKeyStallsTheReplacement(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	first, second := token.Hash("first"), token.Hash("second")
	before := f.issue("frontend", tokenHash(first))
	holder := f.issue("holder", tokenHash(second))
	f.UpdateKey("frontend", tokenHash(second))
	const held = `APIKey "holder" already has this token hash: delete that key, or import another token.`
	f.waitForMessageOfRotation("frontend", held)
	waiting := f.GetKey("frontend")
	want := importedConditions()
	want[v1alpha1.ConditionReconciling] = "True TokenHashConflict: " + held
	f.assertConditions(waiting, want)
	f.assertKstatus(waiting, status.InProgressStatus) // tools may move a token from one key to another

	f.clock.advance(renameTimeout)
	f.touch("frontend", "later")
	key := f.WaitForReady("frontend", v1alpha1.ReasonTokenHashConflict)
	f.assertConditions(key, stuck(v1alpha1.ReasonTokenHashConflict, held))
	f.assertRecords(key, newest(first))
	if eventType, note := f.waitForEvent("frontend", v1alpha1.ReasonTokenHashConflict); eventType != corev1.EventTypeWarning || note != held {
		t.Errorf("the event is %s: %s", eventType, note)
	}

	framework.Must(f, f.Env.Client.Delete(t.Context(), holder))
	rotated := f.waitForToken(before)
	f.assertRecords(rotated, newest(second), superseded(first))
	f.assertConditions(rotated, importedConditions())
}

// A hash that a key releases is free for the keys that wait for it: when its overlap has passed, or when the key declares another one.
func TestReconcile_AReleasedTokenHashWakesTheKeysThatWaitForIt(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(renameTimeout) // a key that must wait is stalled at once
	f.startController(nil)
	first, second, third := token.Hash("first"), token.Hash("second"), token.Hash("third")
	holder := f.issue("holder", tokenHash(first), overlap(time.Hour))
	f.CreateKey("waiting", tokenHash(first))
	f.WaitForReady("waiting", v1alpha1.ReasonTokenHashConflict)
	f.UpdateKey("holder", tokenHash(second))
	f.waitForToken(holder)
	f.await("waiting")
	if key := f.GetKey("waiting"); apikey.IsClaimed(key) {
		t.Fatal("a hash is taken from the key whose superseded token has it")
	}
	f.clock.advance(time.Hour)
	f.touch("holder", "the overlap has passed")
	if key := f.WaitForReady("waiting", v1alpha1.ReasonIssued); hashOf(key) != first {
		t.Error("the waiting key does not have the released hash")
	}

	// A key whose replacement is stalled may declare another hash.
	f.UpdateKey("holder", tokenHash(first))
	stalled := f.WaitForReady("holder", v1alpha1.ReasonTokenHashConflict)
	f.UpdateKey("holder", tokenHash(third))
	key := f.waitForToken(stalled)
	f.assertRecords(key, newest(third), superseded(second))
}

// A rotation does not compete for the app name, which another key waits for.
func TestInvariant2_ARotationKeepsTheAppName(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(renameTimeout)
	f.startController(nil)
	before := f.issue("frontend", appName("Frontend"))
	f.CreateKey("waiting", appName("Frontend"))
	f.WaitForReady("waiting", v1alpha1.ReasonAppNameConflict)
	f.request("frontend")
	key := f.rotate(before)
	f.assertHandedOver(key, nil)
	f.await("waiting")
	if waiting := f.WaitForReady("waiting", v1alpha1.ReasonAppNameConflict); apikey.IsClaimed(waiting) {
		t.Error("the waiting key has a token")
	}
}

func TestReconcile_AWrongClockStartsNoRotationAndEndsNoToken(t *testing.T) {
	f := newFixture(t)
	f.startControllerWithClock(f.clock, nil)
	before := f.issue("frontend")
	f.request("frontend")
	key := f.waitForToken(before)
	f.clock.advance(time.Hour) // the controller's clock is wrong from now on
	f.updateStatus("frontend", func(status *v1alpha1.APIKeyStatus) {
		status.Tokens[1].NotAfter = new(metav1.NewTime(time.Now().Add(-time.Minute)))
	})
	f.waitForClockWarning("frontend")
	if tokens := f.GetKey("frontend").Status.Tokens; len(tokens) != 2 {
		t.Errorf("the superseded token was dropped: %v", tokens)
	}
	f.UpdateKey("frontend", requestAt(time.Now().Add(-time.Second)))
	f.waitForMessageOfRotation("frontend", "Waiting until the controller's clock agrees with the API server's: the rotation may not be due yet.")
	f.clock.advance(-time.Hour)
	f.touch("frontend", "after the clock was corrected")
	rotated := f.waitForToken(key)
	f.assertRecords(rotated, newest(hashOf(rotated)), superseded(hashOf(key)))
}

// The controller rotates many keys at a low priority, and hands over what it has claimed before it claims for other keys.
func TestInvariant10_KeysThatRotateAtOnceDoNotDelayANewKey(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	const count = 60
	var creations sync.WaitGroup
	for i := range count {
		creations.Go(func() { f.CreateKey(fmt.Sprint("old-", i), interval(2*time.Hour), overlap(time.Hour)) })
	}
	creations.Wait()
	before := make([]*v1alpha1.APIKey, count)
	for i := range count {
		before[i] = f.WaitForReady(fmt.Sprint("old-", i), v1alpha1.ReasonIssued)
	}
	stop()
	f.clock.advance(2 * time.Hour)
	f.startController(nil) // which finds that all of them are due
	f.waitForClaim("old-0")
	f.issue("new")
	if !slices.ContainsFunc(f.Keys(), func(key v1alpha1.APIKey) bool { return apikey.IsRotationPending(&key, f.clock.Now()) }) {
		t.Error("the new key was issued only after the rotations")
	}
	for i := range count {
		key := f.waitForToken(before[i])
		f.assertRecords(key, newest(hashOf(key)), superseded(hashOf(before[i])))
		f.assertHandedOver(key, nil)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/kubeapi"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
)

// clockNotTrusted is the note of the event ClockNotTrusted. Clocks that differ by an hour may seem to differ by a second less.
var clockNotTrusted = regexp.MustCompile(`^The controller delays this action and retries every 15s, because it cannot trust its clock: ` +
	`the controller's clock is (1h0m0s|59m59s) (ahead of|behind) the API server's: set the clocks of their nodes by NTP\.$`)

// startControllerWithClock starts a controller with this local clock, as startController does, and counts how often it checks the clock.
func (f *fixture) startControllerWithClock(local *clock, transport func(http.RoundTripper) http.RoundTripper) (checks *atomic.Int64) {
	f.Helper()
	checks = &atomic.Int64{}
	restConfig := rest.CopyConfig(f.Env.Config)
	if transport != nil {
		restConfig.Wrap(transport)
	}
	compared, err := kubeapi.NewClock(restConfig, local.Now, slog.New(slog.DiscardHandler))
	framework.Must(f, err)
	runcontroller.StartWith(f, f.Env, restConfig, f.Namespace, func(r *controllers.APIKeyReconciler) {
		r.Now = compared.Now
		r.CheckClock = func(ctx context.Context) error {
			checks.Add(1)
			return compared.Check(ctx)
		}
	})
	return checks
}

// updateStatus changes the status of a key, and retries if the controller writes it at the same time.
func (f *fixture) updateStatus(name string, change func(*v1alpha1.APIKeyStatus)) {
	f.Helper()
	framework.Eventually(f, "the status of "+name+" is updated", func() bool {
		key := f.GetKey(name)
		change(&key.Status)
		return f.Env.Client.Status().Update(f.Context(), key) == nil
	})
}

// waitForMessage waits until the key's Ready condition has this message.
func (f *fixture) waitForMessage(name, message string) *v1alpha1.APIKey {
	f.Helper()
	var key *v1alpha1.APIKey
	framework.Eventually(f, fmt.Sprintf("%s has the message %q", name, message), func() bool {
		key = f.GetKey(name)
		ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Message == message
	})
	return key
}

func (f *fixture) waitForClockWarning(name string) {
	f.Helper()
	if eventType, note := f.waitForEvent(name, "ClockNotTrusted"); eventType != corev1.EventTypeWarning || !clockNotTrusted.MatchString(note) {
		f.Errorf("the event of %s is %s: %s", name, eventType, note)
	}
}

// assertNow checks that a timestamp is of a correct clock.
func (f *fixture) assertNow(what string, at *metav1.Time) {
	f.Helper()
	if at == nil || time.Since(at.Time).Abs() > time.Minute {
		f.Errorf("%s is %v", what, at)
	}
}

func expiresIn(d time.Duration) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(d))) }
}

func TestReconcile_AWrongClockCausesNoIrreversibleChange(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			f := newFixture(t)
			f.clock.advance(ahead)
			checks := f.startControllerWithClock(f.clock, nil)
			ttl := func(key *v1alpha1.APIKey) {
				key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Minute}}
			}
			f.CreateKey("early", expiresIn(30*time.Minute), ttl)
			f.CreateKey("expired", expiresIn(30*time.Minute))
			f.CreateKey("due", ttl)
			f.CreateKey("deactivated")
			for _, name := range []string{"early", "expired", "due", "deactivated"} {
				f.assertNow("notBefore of "+name, f.WaitForReady(name, v1alpha1.ReasonIssued).Status.Tokens[0].NotBefore)
			}

			f.UpdateKey("expired", expiresIn(-time.Second))
			f.updateStatus("due", func(status *v1alpha1.APIKeyStatus) {
				status.Tokens[0].NotBefore = new(metav1.NewTime(time.Now().Add(-2 * time.Minute)))
			})
			f.waitForClockWarning("expired")
			f.waitForClockWarning("due")
			f.UpdateKey("early", func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = true })
			f.assertIssued(f.WaitForReady("early", v1alpha1.ReasonIssued), "early-token")
			f.assertIssued(f.GetKey("expired"), "expired-token")
			f.assertIssued(f.GetKey("due"), "due-token")
			for _, name := range []string{"early", "expired"} {
				if key := f.GetKey(name); apikey.IsRetired(key) {
					t.Errorf("%s has ended", name)
				}
			}

			f.Deactivate("deactivated")
			f.assertNow("deactivatedAt", f.WaitForReady("deactivated", v1alpha1.ReasonDeactivated).Status.DeactivatedAt)

			if count := checks.Load(); count > 20 { // each attempt is one check, and each key has a few attempts
				t.Errorf("the clock was checked %d times", count)
			}

			f.clock.advance(-ahead)
			f.touch("expired", "after the clock was corrected")
			f.touch("due", "after the clock was corrected")
			f.WaitForReady("expired", v1alpha1.ReasonExpired)
			framework.Eventually(f, "the Secret that is due is deleted", func() bool { return f.Secret("due-token") == nil })
			f.assertIssued(f.WaitForReady("early", v1alpha1.ReasonIssued), "early-token")
		})
	}
}

func TestInvariant3_AWrongClockVoidsNoClaim(t *testing.T) {
	f := newFixture(t)
	key := f.CreateKey("frontend")
	hash := token.Hash("in progress")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: hash, ClaimedAt: new(metav1.Now())}}
	framework.Must(f, f.Env.Client.Status().Update(t.Context(), key))
	f.clock.advance(time.Hour)
	f.startControllerWithClock(f.clock, nil)
	f.waitForMessage("frontend", "Waiting for the end of an earlier handover.")

	f.updateStatus("frontend", func(status *v1alpha1.APIKeyStatus) {
		status.Tokens[0].ClaimedAt = new(metav1.NewTime(time.Now().Add(-time.Minute)))
	})
	key = f.waitForMessage("frontend",
		"Waiting until the controller's clock agrees with the API server's: an earlier handover may be in progress.")
	f.waitForClockWarning("frontend")
	if len(key.Status.Tokens) != 1 || key.Status.Tokens[0].Hash != hash || f.Secret("frontend-token") != nil {
		t.Errorf("the claim was replaced: %v", key.Status.Tokens)
	}

	f.clock.advance(-time.Hour)
	f.touch("frontend", "after the clock was corrected")
	f.assertIssued(f.WaitForReady("frontend", v1alpha1.ReasonIssued), "frontend-token")
}

// A controller has claimed for a key and is about to hand over its token. Then a second one, whose clock differs, reads the claim.
func TestInvariant3_ControllersWhoseClocksDifferMintOneToken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ first, second time.Duration }{
		{time.Hour, 0}, {0, time.Hour}, {-time.Hour, 0}, {0, -time.Hour}, {-time.Hour, time.Hour}, {time.Hour, -time.Hour},
	} {
		t.Run(fmt.Sprintf("%s and %s", test.first, test.second), func(t *testing.T) {
			f := newFixture(t)
			f.CreateKey("frontend")
			claimed, handOver := make(chan struct{}), make(chan struct{})
			proceed := sync.OnceFunc(func() { close(handOver) })
			t.Cleanup(proceed)
			var claimOnce sync.Once
			f.startControllerWithClock(&clock{ahead: test.first}, func(next http.RoundTripper) http.RoundTripper {
				return &intercept{next: next, respond: func(call string, send func() (*http.Response, error)) (*http.Response, error) {
					if call == "POST secret" {
						claimOnce.Do(func() { close(claimed) })
						<-handOver
					}
					return send()
				}}
			})
			<-claimed
			claim := f.GetKey("frontend").Status.Tokens
			f.assertNow("claimedAt", claim[0].ClaimedAt)
			f.startControllerWithClock(&clock{ahead: test.second}, nil)
			f.waitForMessage("frontend", "Waiting for the end of an earlier handover.")
			proceed()
			key := f.WaitForReady("frontend", v1alpha1.ReasonIssued)
			f.assertIssued(key, "frontend-token")
			if diff := cmp.Diff(claim[0].Hash, key.Status.Tokens[0].Hash); diff != "" {
				t.Errorf("the token is not the one that was claimed first (-claimed +issued):\n%s", diff)
			}
		})
	}
}

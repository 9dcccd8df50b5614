// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

const days = 24 * time.Hour

// reconcile waits until the controller has reconciled the key after a change of its spec. Only then it processes the second change.
func (f *fixture) reconcile(name string) {
	f.Helper()
	for range 2 {
		f.touchSpec(name)
		framework.Eventually(f, name+" is reconciled", func() bool {
			key := f.GetKey(name)
			return key.Status.ObservedGeneration == key.Generation
		})
	}
}

// warnings returns the expiry warnings of a key, as its type, action and note.
func (f *fixture) warnings(name string) []string {
	f.Helper()
	var warnings []string
	for _, event := range f.events(name, "ExpiresSoon") {
		warnings = append(warnings, fmt.Sprintf("%s %s: %s", event.Type, event.Action, event.Note))
		if key := f.GetKey(name); event.Regarding.UID != key.UID || event.Regarding.Kind != "APIKey" ||
			event.ReportingController != "apikey-controller" {
			f.Errorf("the event is %v", event)
		}
	}
	return warnings
}

// assertWarnings reconciles the key, and checks how often its owner was warned.
func (f *fixture) assertWarnings(name, when string, count int) {
	f.Helper()
	f.reconcile(name)
	var want []string
	for range count {
		want = append(want, fmt.Sprintf("%s End: The key of the app %q expires at %s: to keep it, set a later spec.expiresAt. "+
			"Otherwise give its clients the token of another key before then.",
			corev1.EventTypeWarning, name, f.GetKey(name).Spec.ExpiresAt.UTC().Format(time.RFC3339)))
	}
	framework.Eventually(f, fmt.Sprintf("%s has %d warnings, %s", name, count, when), func() bool { return len(f.warnings(name)) >= count })
	if diff := cmp.Diff(want, f.warnings(name)); diff != "" {
		f.Errorf("the warnings of %s, %s (-want +got):\n%s", name, when, diff)
	}
}

func TestWarnOfExpiry_OneEventSevenDaysAndOneDayBefore(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	f.CreateKey("frontend", expiresIn(30*days), appName("frontend"))
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.assertWarnings("frontend", "30 days before", 0)
	f.clock.advance(23*days - time.Hour)
	f.assertWarnings("frontend", "7 days and an hour before", 0)
	f.clock.advance(2 * time.Hour)
	f.assertWarnings("frontend", "7 days before", 1)
	f.clock.advance(3 * days)
	f.assertWarnings("frontend", "4 days before", 1)
	f.clock.advance(3*days + time.Hour)
	f.assertWarnings("frontend", "1 day before", 2)
	stop()
	f.startController(nil)
	f.assertWarnings("frontend", "after a restart", 2)
}

// The key is reconciled at the deadline, without an event of the watch.
func TestWarnOfExpiry_AtItsDeadline(t *testing.T) {
	f := newFixture(t)
	f.CreateKey("frontend", expiresIn(8*days))
	f.clock.advance(days - 3*time.Second)
	f.startController(nil)
	f.waitForEvent("frontend", "ExpiresSoon")
}

func TestWarnOfExpiry_AfterNoControllerRan(t *testing.T) {
	f := newFixture(t)
	stop := f.startController(nil)
	for name, age := range map[string]time.Duration{"a-day": 8 * days, "more-than-a-day": 7*days + time.Hour, "both": 2 * days} {
		f.CreateKey(name, expiresIn(age), appName(name))
		f.WaitForReady(name, v1alpha1.ReasonIssued)
	}
	stop()
	f.clock.advance(2*days - 30*time.Minute) // the key both has half an hour left
	f.startController(nil)
	f.assertWarnings("a-day", "one day late", 1)
	f.assertWarnings("more-than-a-day", "more than one day late", 0)
	f.assertWarnings("both", "when it almost expires", 1)
}

func TestWarnOfExpiry_NotOfATimeThatTheOwnerChose(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	for name, lifetime := range map[string]time.Duration{"seven-days": 7 * days, "six-days": 6 * days, "one-day": days, "hours": 3 * time.Hour} {
		f.CreateKey(name, expiresIn(lifetime+time.Minute), appName(name))
		f.WaitForReady(name, v1alpha1.ReasonIssued)
	}
	f.clock.advance(2 * time.Hour)
	for _, name := range []string{"seven-days", "six-days", "one-day", "hours"} {
		f.assertWarnings(name, "after its creation", 0)
	}
	f.clock.advance(5 * days)
	f.assertWarnings("six-days", "one day before", 1)
}

func TestWarnOfExpiry_OncePerExpiry(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	expiry := func(d time.Duration) {
		f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(f.clock.Now().Add(d))) })
	}
	f.CreateKey("frontend", expiresIn(90*days), appName("frontend"))
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.clock.advance(30 * days)
	expiry(20 * time.Hour)
	f.assertWarnings("frontend", "when the expiry was moved forward", 1)
	expiry(4 * days)
	f.reconcile("frontend")
	if got := len(f.warnings("frontend")); got != 1 {
		t.Errorf("4 days before the new expiry, there are %d warnings, want 1", got)
	}
	expiry(7 * days)
	framework.Eventually(f, "7 days before the new expiry, there is another warning", func() bool { return len(f.warnings("frontend")) == 2 })
}

func TestWarnOfExpiry_OnlyOfAcceptedKeys(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("holder", appName("app"))
	f.WaitForReady("holder", v1alpha1.ReasonIssued)
	f.CreateKey("waits", expiresIn(8*days), appName("app"))
	f.CreateKey("ended", expiresIn(8*days), appName("ended"))
	f.WaitForReady("ended", v1alpha1.ReasonIssued)
	f.Deactivate("ended")
	f.WaitForReady("ended", v1alpha1.ReasonDeactivated)
	f.CreateKey("accepted", expiresIn(8*days), appName("accepted"))
	f.WaitForReady("accepted", v1alpha1.ReasonIssued)
	f.clock.advance(days + time.Hour)
	for _, name := range []string{"waits", "ended"} {
		f.touch(name, "after a week")
		f.touch(name, "again")
	}
	f.assertWarnings("accepted", "7 days before", 1)
	for _, name := range []string{"waits", "ended"} {
		if got := f.warnings(name); len(got) != 0 {
			t.Errorf("%s has the warnings %v", name, got)
		}
	}
}

func TestWarnOfExpiry_TriesAgainUnlessItIsRefused(t *testing.T) {
	t.Parallel()
	refusal := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,` +
		`"message":"events \"e\" is forbidden: exceeded quota: objects"}`
	for _, test := range []struct {
		name    string
		respond func() (*http.Response, error)
		want    int64
	}{
		{"no-response", func() (*http.Response, error) { return nil, errors.New("connection reset") }, 4},
		{"refused", func() (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(refusal)),
			}, nil
		}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			var attempts atomic.Int64
			f.startController(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(request *http.Request) (*http.Response, error) {
					if !isExpiryWarning(request) {
						return next.RoundTrip(request)
					}
					attempts.Add(1)
					return test.respond()
				})
			})
			f.CreateKey("frontend", expiresIn(8*days))
			f.WaitForReady("frontend", v1alpha1.ReasonIssued)
			f.clock.advance(days + time.Hour)
			f.reconcile("frontend")
			f.reconcile("frontend")
			f.touch("frontend", "at last")
			framework.Eventually(f, "the warning was attempted", func() bool { return attempts.Load() >= test.want })
			if got := attempts.Load(); test.name == "refused" && got != test.want {
				t.Errorf("the warning was attempted %d times, want %d", got, test.want)
			}
			f.assertIssued(f.GetKey("frontend"), "frontend-token")
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// isExpiryWarning reports whether the request creates the event of an expiry warning. It leaves the body of the request as it is.
func isExpiryWarning(request *http.Request) bool {
	if request.Method != http.MethodPost || !strings.HasSuffix(request.URL.Path, "/events") || request.GetBody == nil {
		return false
	}
	body, err := request.GetBody()
	if err != nil {
		return false
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	return err == nil && strings.Contains(string(content), "ExpiresSoon")
}

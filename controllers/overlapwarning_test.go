// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// supersede rotates a key with an overlap, and returns it.
func (f *fixture) supersede(name string, lasting time.Duration) *v1alpha1.APIKey {
	f.Helper()
	key := f.issue(name, overlap(lasting))
	f.request(name)
	return f.rotate(key)
}

// useAt lets the time pass until after the rotation, and then uses the superseded token.
func (f *fixture) useAt(key *v1alpha1.APIKey, after time.Duration) time.Time {
	f.Helper()
	at := key.Status.Tokens[0].NotBefore.Add(after)
	f.clock.advance(at.Sub(f.clock.Now()))
	f.use(key, 1, at)
	f.waitForLastUse(key.Name, 1, at)
	return at
}

func TestWarnOfOverlap_OneHourBeforeASupersededTokenThatIsUsedEnds(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	key := f.supersede("frontend", 10*time.Hour)
	at := f.useAt(key, 3*time.Hour)
	f.clock.advance(6*time.Hour - time.Minute)
	f.await("frontend")
	if got := len(f.events("frontend", "SupersededTokenInUse")); got != 0 {
		t.Errorf("%d events an hour and a minute before the end", got)
	}
	f.clock.advance(2 * time.Minute)
	f.touchSpec("frontend")
	eventType, note := f.waitForEvent("frontend", "SupersededTokenInUse")
	want := fmt.Sprintf("A superseded token of the app \"App frontend\", with the hint %q, was still used at %s, and is refused from %s on: "+
		"give its clients the new token before then.", key.Status.Tokens[1].Hint, at.UTC().Format(time.RFC3339),
		key.Status.Tokens[1].NotAfter.UTC().Format(time.RFC3339))
	if eventType != corev1.EventTypeWarning || note != want {
		t.Errorf("the event is %s %q, want %q", eventType, note, want)
	}
	f.await("frontend")
	f.await("frontend")
	if got := len(f.events("frontend", "SupersededTokenInUse")); got != 1 {
		t.Errorf("%d events", got)
	}
}

// Clients that follow the Secret use the former token for some minutes after each rotation.
func TestWarnOfOverlap_NotOfClientsThatSwitchedInTime(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	switched, late := f.supersede("switched", 10*time.Hour), f.supersede("late", 10*time.Hour)
	f.useAt(switched, 59*time.Minute)
	f.useAt(late, 2*time.Hour)
	f.clock.advance(7*time.Hour + time.Minute)
	for _, name := range []string{"switched", "late"} {
		f.await(name)
	}
	f.waitForEvent("late", "SupersededTokenInUse")
	f.await("switched")
	if got := len(f.events("switched", "SupersededTokenInUse")); got != 0 {
		t.Errorf("%d events", got)
	}
}

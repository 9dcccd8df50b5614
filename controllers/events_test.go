// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

func TestRecordTransition_NoEventRepeatsAConditionThatNeedsNoUser(t *testing.T) {
	for reason, change := range map[string]func(*v1alpha1.APIKey){
		v1alpha1.ReasonIssued:      func(*v1alpha1.APIKey) {},
		v1alpha1.ReasonDeactivated: func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) },
		v1alpha1.ReasonExpired:     expiresIn(time.Minute),
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				key := newKey("key", appName("App"))
				change(key)
				s.add(key)
				s.start()
				time.Sleep(time.Hour)
				synctest.Wait()
				if got := s.get(key); readyReason(got) != reason {
					t.Errorf("the key is %s (%s)", readyReason(got), readyMessage(got))
				}
				close(s.events.Events)
				for recorded := range s.events.Events {
					t.Errorf("the controller recorded the event %q", recorded)
				}
			})
		})
	}
}

func TestShorten_CutsBetweenTwoCharacters(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		strings.Repeat("a", 1024):               strings.Repeat("a", 1024),
		strings.Repeat("a", 1025):               strings.Repeat("a", 1021) + "…",
		strings.Repeat("é", 512):                strings.Repeat("é", 512),
		strings.Repeat("é", 513):                strings.Repeat("é", 510) + "…",
		strings.Repeat("\U0001F511", 300):       strings.Repeat("\U0001F511", 255) + "…",
		"a" + strings.Repeat("\U0001F511", 300): "a" + strings.Repeat("\U0001F511", 255) + "…",
	} {
		got := shorten(text, maxNoteLength)
		if got != want || !utf8.ValidString(got) || len(got) > maxNoteLength {
			t.Errorf("%d bytes become %d: %q", len(text), len(got), got)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

func TestStateOf(t *testing.T) {
	instant := func(text string) *metav1.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return &metav1.Time{Time: parsed}
	}
	const active, deactivated, expired = apikey.StateActive, apikey.StateDeactivated, apikey.StateExpired
	for _, test := range []struct {
		rule          string
		active        *bool
		expiresAt     string
		deactivatedAt string
		deletedAt     string
		now           string
		want          apikey.State
	}{
		{rule: "active is the default", now: "2026-06-01T00:00:00Z", want: active},
		{rule: "active, written out", active: new(true), now: "2026-06-01T00:00:00Z", want: active},
		{rule: "deactivated by spec alone", active: new(false), now: "2026-06-01T00:00:00Z", want: deactivated},
		{rule: "deactivated, and recorded", active: new(false), deactivatedAt: "2026-05-01T00:00:00Z",
			now: "2026-06-01T00:00:00Z", want: deactivated},
		{rule: "being deleted", deletedAt: "2026-06-01T00:00:00Z", now: "2026-06-01T00:00:00Z", want: deactivated},
		{rule: "being deleted at a future time", deletedAt: "2026-06-02T00:00:00Z", now: "2026-06-01T00:00:00Z", want: deactivated},
		{rule: "a second before it expires", expiresAt: "2026-06-01T00:00:00Z", now: "2026-05-31T23:59:59Z", want: active},
		{rule: "a nanosecond before it expires", expiresAt: "2026-06-01T00:00:00Z", now: "2026-05-31T23:59:59.999999999Z", want: active},
		{rule: "at the instant it expires", expiresAt: "2026-06-01T00:00:00Z", now: "2026-06-01T00:00:00Z", want: expired},
		{rule: "the same instant in another zone", expiresAt: "2026-06-01T02:00:00+02:00", now: "2026-06-01T00:00:00Z", want: expired},
		{rule: "a second before it expires in another zone", expiresAt: "2026-06-01T02:00:00+02:00", now: "2026-05-31T23:59:59Z", want: active},
		{rule: "a fraction of a second counts as the whole", expiresAt: "2026-06-01T00:00:00.9Z", now: "2026-06-01T00:00:00Z", want: expired},
		{rule: "expires in 1970", expiresAt: "1970-01-01T00:00:00Z", now: "2026-06-01T00:00:00Z", want: expired},
		{rule: "expires in 1970, checked in 1969", expiresAt: "1970-01-01T00:00:00Z", now: "1969-12-31T23:59:59Z", want: active},
		{rule: "expires in 9999", expiresAt: "9999-12-30T23:59:59Z", now: "2026-06-01T00:00:00Z", want: active},
		{rule: "expires in 9999, checked then", expiresAt: "9999-12-30T23:59:59Z", now: "9999-12-30T23:59:59Z", want: expired},
		{rule: "never expires, checked in 9999", now: "9999-12-31T23:59:59Z", want: active},
		{rule: "a recorded end is final though expiresAt was changed", expiresAt: "2027-01-01T00:00:00Z",
			deactivatedAt: "2026-01-01T00:00:00Z", now: "2026-06-01T00:00:00Z", want: expired},
		{rule: "a recorded end is final though expiresAt was removed", deactivatedAt: "2026-01-01T00:00:00Z",
			now: "2026-06-01T00:00:00Z", want: expired},
		{rule: "a recorded end is final though the clock was set back", expiresAt: "2026-01-01T00:00:00Z",
			deactivatedAt: "2026-01-01T00:00:00Z", now: "2025-12-31T00:00:00Z", want: expired},
		{rule: "deactivated after it expired", active: new(false), expiresAt: "2026-01-01T00:00:00Z",
			deactivatedAt: "2026-01-01T00:00:00Z", now: "2026-06-01T00:00:00Z", want: deactivated},
	} {
		t.Run(test.rule, func(t *testing.T) {
			key := &v1alpha1.APIKey{Spec: v1alpha1.APIKeySpec{Active: test.active}}
			for field, text := range map[**metav1.Time]string{
				&key.Spec.ExpiresAt:       test.expiresAt,
				&key.Status.DeactivatedAt: test.deactivatedAt,
				&key.DeletionTimestamp:    test.deletedAt,
			} {
				if text != "" {
					*field = instant(text)
				}
			}
			now := instant(test.now).Time
			if got := apikey.StateOf(key, now); got != test.want {
				t.Errorf("StateOf = %s, want %s", got, test.want)
			}
			if got := apikey.ValidityOf(key).State(now); got != test.want {
				t.Errorf("ValidityOf.State() = %s, want %s", got, test.want)
			}
		})
	}
}

func TestValidityOf_AKeyThatNeverExpires(t *testing.T) {
	if got, want := apikey.ValidityOf(&v1alpha1.APIKey{}), (apikey.Validity{ExpiresAt: apikey.NeverExpires}); got != want {
		t.Errorf("ValidityOf = %+v, want %+v", got, want)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// Very many keys may expire at the same time. Then neither their warnings nor their ends may delay other keys.
func TestInvariant10_OnlyTheDeletionOfASecretPrecedesDeferredWork(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	r := &APIKeyReconciler{Now: func() time.Time { return now }}
	for _, test := range []struct {
		deadline    string
		expiry, ttl time.Duration
		want        int
		wait        time.Duration
	}{
		{"the warning 7 days before", 9 * day, 0, priorityDeferred, 2 * day},
		{"the warning 7 days before the expiry, before the Secret is due", 9 * day, 3 * day, priorityDeferred, 2 * day},
		{"the Secret, before a warning", 9 * day, day, priorityDeadline, day},
		{"the warning 1 day before", 5 * day, 0, priorityDeferred, 4 * day},
		{"none", 0, 0, priorityDeferred, 0},
		{"the Secret, without an expiry", 0, day, priorityDeadline, day},
		{"the expiry", time.Hour, 0, priorityDeferred, time.Hour},
		{"the Secret, before the expiry", time.Hour, time.Minute, priorityDeadline, time.Minute},
	} {
		key := &v1alpha1.APIKey{}
		if test.expiry > 0 {
			key.Spec.ExpiresAt = new(metav1.NewTime(now.Add(test.expiry)))
		}
		key.Status.Tokens = []v1alpha1.TokenRecord{{NotBefore: new(metav1.NewTime(now))}}
		if test.ttl > 0 {
			key.Status.SecretName = "frontend-token"
			key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: test.ttl}}
		}
		if got := r.priorityOfRequeue(key); got != test.want {
			t.Errorf("%s has the priority %d, want %d", test.deadline, got, test.want)
		}
		if got := r.untilNextDeadline(key); got != test.wait {
			t.Errorf("%s is due in %s, want %s", test.deadline, got, test.wait)
		}
	}
}

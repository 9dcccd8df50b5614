// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

func TestOfKeysThatAreOnlyToldOfThoseAreQueuedThatHaveWork(t *testing.T) {
	now := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	r := &APIKeyReconciler{Now: func() time.Time { return now }}
	later := metav1.NewTime(now.Add(time.Hour))
	for name, test := range map[string]struct {
		change func(*v1alpha1.APIKey)
		want   bool
	}{
		"nothing will happen": {func(*v1alpha1.APIKey) {}, false},
		"not issued":          {func(key *v1alpha1.APIKey) { key.Status.Tokens = nil }, true},
		"deactivated":         {func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }, true},
		"expires later":       {func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = &later }, true},
		"its Secret goes later": {func(key *v1alpha1.APIKey) {
			key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: 2 * time.Hour}}
		}, true},
		"changed since":    {func(key *v1alpha1.APIKey) { key.Generation = 2 }, true},
		"condition is off": {func(key *v1alpha1.APIKey) { key.Status.Conditions = key.Status.Conditions[:1] }, true},
	} {
		key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Generation: 1, ResourceVersion: "7"}}
		key.Status.Tokens = []v1alpha1.TokenRecord{{NotBefore: &metav1.Time{Time: now}}}
		key.Status.SecretName = "key-token"
		describeIssued(key)
		test.change(key)
		former := key.DeepCopy()
		if got := r.filterUnchanged().Create(event.CreateEvent{Object: key}); got != test.want {
			t.Errorf("%s: first seen, it is queued: %t, want %t", name, got, test.want)
		}
		if got := r.filterUnchanged().Update(event.UpdateEvent{ObjectOld: former, ObjectNew: key}); got != test.want {
			t.Errorf("%s: seen again as it was, it is queued: %t, want %t", name, got, test.want)
		}
		former.ResourceVersion = "6"
		if !r.filterUnchanged().Update(event.UpdateEvent{ObjectOld: former, ObjectNew: key}) {
			t.Errorf("%s: changed, it is not queued", name)
		}
	}
}

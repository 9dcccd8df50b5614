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

func TestFilterUnchanged_AcceptsUnchangedKeysThatNeedAReconcile(t *testing.T) {
	now := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	r := &APIKeyReconciler{Now: func() time.Time { return now }}
	later := metav1.NewTime(now.Add(time.Hour))
	for name, test := range map[string]struct {
		change func(*v1alpha1.APIKey)
		want   bool
	}{
		"issued and unchanged": {func(*v1alpha1.APIKey) {}, false},
		"not issued":           {func(key *v1alpha1.APIKey) { key.Status.Tokens = nil }, true},
		"deactivated":          {func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }, true},
		"expires later":        {func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = &later }, true},
		"its Secret is due later": {func(key *v1alpha1.APIKey) {
			key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: 2 * time.Hour}}
		}, true},
		"its spec has changed":   {func(key *v1alpha1.APIKey) { key.Generation = 2 }, true},
		"a condition is missing": {func(key *v1alpha1.APIKey) { key.Status.Conditions = key.Status.Conditions[:1] }, true},
	} {
		key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Generation: 1, ResourceVersion: "7"}}
		key.Status.Tokens = []v1alpha1.TokenRecord{{NotBefore: &metav1.Time{Time: now}}}
		key.Status.SecretName = "key-token"
		describeIssued(key)
		test.change(key)
		former := key.DeepCopy()
		if got := r.filterUnchanged().Create(event.CreateEvent{Object: key}); got != test.want {
			t.Errorf("%s: a new key is accepted: %t, want %t", name, got, test.want)
		}
		if got := r.filterUnchanged().Update(event.UpdateEvent{ObjectOld: former, ObjectNew: key}); got != test.want {
			t.Errorf("%s: an unchanged key is accepted: %t, want %t", name, got, test.want)
		}
		former.ResourceVersion = "6"
		if !r.filterUnchanged().Update(event.UpdateEvent{ObjectOld: former, ObjectNew: key}) {
			t.Errorf("%s: a changed key is not accepted", name)
		}
	}
}

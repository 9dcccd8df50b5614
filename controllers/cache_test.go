// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// The cache keeps none of this metadata, and the controller's writes of the status are made of what the cache keeps.
func TestTheControllersWritesLeaveAllMetadataAsItIs(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "owner"}}
	w.create(owner)
	created := w.createKey("frontend", func(key *v1alpha1.APIKey) {
		key.ObjectMeta = metav1.ObjectMeta{
			Namespace: w.namespace, Name: "frontend", GenerateName: "front",
			Annotations:     map[string]string{corev1.LastAppliedConfigAnnotation: `{"from":"kubectl apply"}`, "team": "shop"},
			Labels:          map[string]string{"tier": "web"},
			Finalizers:      []string{"test.squirrel.dev/kept"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}},
		}
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
	})
	assertKept := func(when string, key *v1alpha1.APIKey) {
		t.Helper()
		changing := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "ResourceVersion", "Generation", "ManagedFields", "DeletionTimestamp",
			"DeletionGracePeriodSeconds")
		if diff := cmp.Diff(created.ObjectMeta, key.ObjectMeta, changing); diff != "" {
			t.Errorf("the metadata, when %s (-want +got):\n%s", when, diff)
		}
		if len(key.ManagedFields) <= len(created.ManagedFields) {
			t.Errorf("of %d managers, and the controller, %d are on record when %s", len(created.ManagedFields), len(key.ManagedFields), when)
		}
	}
	assertKept("the key is issued", w.await("frontend", v1alpha1.ReasonIssued))

	w.clock.advance(2 * time.Hour)
	w.touchSpec("frontend")
	w.eventually("the Secret is removed", func() bool { return w.get("frontend").Status.SecretName == "" })
	assertKept("its Secret is removed", w.get("frontend"))

	w.must(w.env.Client.Delete(t.Context(), created))
	assertKept("it is being deleted", w.await("frontend", v1alpha1.ReasonDeactivated))
	w.update("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = nil })
	w.eventually("the key is gone", func() bool { return len(w.keys()) == 0 })
}

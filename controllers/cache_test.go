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
	"squirrel.dev/apikey-operator/test/framework"
)

// The cache keeps none of this metadata, and the controller's writes of the status are made of what the cache keeps.
func TestTheControllersWritesLeaveAllMetadataAsItIs(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "owner"}}
	f.Create(owner)
	created := f.CreateKey("frontend", func(key *v1alpha1.APIKey) {
		key.ObjectMeta = metav1.ObjectMeta{
			Namespace: f.Namespace, Name: "frontend", GenerateName: "front",
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
	assertKept("the key is issued", f.WaitForReady("frontend", v1alpha1.ReasonIssued))

	f.clock.advance(2 * time.Hour)
	f.touchSpec("frontend")
	framework.Eventually(f, "the Secret is removed", func() bool { return f.GetKey("frontend").Status.SecretName == "" })
	assertKept("its Secret is removed", f.GetKey("frontend"))

	framework.Must(f, f.Env.Client.Delete(t.Context(), created))
	assertKept("it is being deleted", f.WaitForReady("frontend", v1alpha1.ReasonDeactivated))
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = nil })
	framework.Eventually(f, "the key is gone", func() bool { return len(f.Keys()) == 0 })
}

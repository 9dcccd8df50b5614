// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

func TestWhatTheControllerDoesNotReadOfAKeyIsNotLost(t *testing.T) {
	w := newWorld(t)
	w.startController(nil)
	annotations := map[string]string{corev1.LastAppliedConfigAnnotation: `{"from":"kubectl apply"}`, "team": "shop"}
	created := w.createKey("frontend", func(key *v1alpha1.APIKey) {
		key.Annotations = maps.Clone(annotations)
		key.Labels = map[string]string{"tier": "web"}
		key.Finalizers = []string{"test.squirrel.dev/kept"}
	})

	issued := w.await("frontend", v1alpha1.ReasonIssued)
	if diff := cmp.Diff(annotations, issued.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(created.Labels, issued.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(created.Finalizers, issued.Finalizers); diff != "" {
		t.Errorf("finalizers (-want +got):\n%s", diff)
	}
	if len(issued.ManagedFields) <= len(created.ManagedFields) {
		t.Errorf("of %d managers, and the controller, %d are on record", len(created.ManagedFields), len(issued.ManagedFields))
	}
	w.update("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = nil })
}

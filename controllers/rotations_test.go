// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// TestInvariant1_TokensOfRotationsLeaveTheMemory checks that a token is deleted when it is handed over or refused, and when its
// key is forgotten.
func TestInvariant1_TokensOfRotationsLeaveTheMemory(t *testing.T) {
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	key := func(name string) *v1alpha1.APIKey {
		key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Name: name}}
		key.Status.Tokens = []v1alpha1.TokenRecord{
			{Hash: "newest", NotBefore: &metav1.Time{Time: start}},
			{Hash: name, NotBefore: &metav1.Time{Time: start}, ClaimedAt: &metav1.Time{Time: start}},
		}
		return key
	}
	var r rotations
	schedule := func(name string) handover {
		scheduled := handover{hash: name, secret: &corev1.Secret{}, due: start.Add(acceptanceDelay), end: start.Add(handoverTimeout)}
		r.schedule(key(name), scheduled)
		return scheduled
	}
	tokens := func() int {
		count := 0
		for _, scheduled := range r.handovers {
			if scheduled.secret != nil {
				count++
			}
		}
		return count
	}
	for name, result := range map[string]error{"handed-over": nil, "refused": &apikey.Conflict{}, "former": errFormerSecret} {
		scheduled := schedule(name)
		if r.record(key(name), scheduled, &writeError{}); tokens() != 1 {
			t.Errorf("%s: after a write whose result is not known, the memory has %d tokens, want 1", name, tokens())
		}
		if r.record(key(name), scheduled, result); tokens() != 0 {
			t.Errorf("%s: the token is still in the memory", name)
		}
		if scheduled, ok := r.handoverOf(key(name)); !ok || !scheduled.isEnded() {
			t.Errorf("%s: the result is not known any more", name)
		}
	}

	schedule("next")
	another := key("next")
	another.Status.Tokens[1].Hash = "another"
	if _, ok := r.handoverOf(another); ok {
		t.Error("the token of another claim is handed over")
	}
	if r.forget(client.ObjectKey{Name: "next"}); tokens() != 0 {
		t.Error("the token of a forgotten key is still in the memory")
	}
}

func TestTrackRotation_RecordsSinceWhenARotationIsDue(t *testing.T) {
	now := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	r := &APIKeyReconciler{Now: func() time.Time { return now }}
	ago := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(-d)} }
	issued := v1alpha1.TokenRecord{Hash: "newest", NotBefore: ago(3 * time.Hour)}
	superseded := v1alpha1.TokenRecord{Hash: "superseded", NotBefore: ago(3 * time.Hour), NotAfter: ago(-time.Hour)}
	claim := v1alpha1.TokenRecord{Hash: "claim", NotBefore: ago(0), ClaimedAt: ago(0)}
	for _, step := range []struct {
		rule     string
		interval time.Duration
		tokens   []v1alpha1.TokenRecord
		want     time.Time
	}{
		{"an interval has passed", 2 * time.Hour, []v1alpha1.TokenRecord{issued}, now.Add(-time.Hour)},
		{"the rotation has begun", 2 * time.Hour, []v1alpha1.TokenRecord{issued, claim}, now.Add(-time.Hour)},
		{"no interval has passed", 4 * time.Hour, []v1alpha1.TokenRecord{issued}, time.Time{}},
		{"a request has begun", 4 * time.Hour, []v1alpha1.TokenRecord{issued, claim}, now},
		{"the rotation waits for the end of a token", 2 * time.Hour,
			[]v1alpha1.TokenRecord{issued, superseded, superseded, superseded, superseded}, time.Time{}},
	} {
		key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Name: "frontend"}}
		key.Spec.Rotation = &v1alpha1.Rotation{Interval: &metav1.Duration{Duration: step.interval}}
		key.Status.Tokens = step.tokens
		r.trackRotation(key)
		if got := r.rotations.dueSince[client.ObjectKeyFromObject(key)]; !got.Equal(step.want) {
			t.Errorf("%s: the rotation is due since %v, want %v", step.rule, got, step.want)
		}
	}
}

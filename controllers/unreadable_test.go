// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// field is a field of an object, and a value that makes it unreadable.
type field struct {
	parents []string
	name    string
	value   any
}

func (f field) set(object map[string]any) {
	for _, parent := range f.parents {
		if object[parent] == nil {
			object[parent] = map[string]any{}
		}
		object = object[parent].(map[string]any)
	}
	object[f.name] = f.value
}

func unreadableMessage(fields string) string {
	return "The controller does nothing with this key, because it cannot read some of its fields (" + fields + "): " +
		"correct them as 'kubectl explain apikey --recursive' describes them, or delete the key."
}

func TestInvariant10_AnUnreadableFieldStopsOnlyItsKey(t *testing.T) {
	unreadable := map[string]struct {
		field
		path string
	}{
		"ttl":            {field{[]string{"spec", "secret"}, "ttl", "a while"}, "spec.secret.ttl"},
		"read-access":    {field{[]string{"spec"}, "readAccess", "true"}, "spec.readAccess"},
		"active":         {field{[]string{"spec"}, "active", "yes"}, "spec.active"},
		"expires-at":     {field{[]string{"spec"}, "expiresAt", "never"}, "spec.expiresAt"},
		"app-name":       {field{[]string{"spec"}, "appName", 7}, "spec.appName"},
		"spec":           {field{nil, "spec", "none"}, "spec"},
		"tokens":         {field{[]string{"status"}, "tokens", "none"}, "status.tokens"},
		"deactivated-at": {field{[]string{"status"}, "deactivatedAt", "never"}, "status.deactivatedAt"},
		"status":         {field{nil, "status", []any{}}, "status"},
	}
	f := newFixture(t)
	stop := f.startController(nil)
	for name := range unreadable {
		f.CreateKey("issued-" + name)
		f.WaitForReady("issued-"+name, v1alpha1.ReasonIssued)
	}
	stop()
	stored := map[string]*v1alpha1.APIKey{}
	for name, test := range unreadable {
		f.CreateKey("new-" + name)
		for _, key := range []string{"new-" + name, "issued-" + name} {
			f.Env.UpdateInEtcd(t, f.Namespace, key, test.set)
			stored[key] = f.GetKey(key)
		}
	}

	f.clock.advance(time.Hour)
	f.startController(nil)
	f.CreateKey("sound")
	f.assertIssued(f.WaitForReady("sound", v1alpha1.ReasonIssued), "sound-token")
	for name, test := range unreadable {
		for _, issued := range []bool{false, true} {
			key := map[bool]string{false: "new-", true: "issued-"}[issued] + name
			if _, note := f.waitForEvent(key, v1alpha1.ReasonUnreadable); note != unreadableMessage(test.path) {
				t.Errorf("the note of the event of %s is %q, want %q", key, note, unreadableMessage(test.path))
			}
			kept := func(key *v1alpha1.APIKey) []any {
				return []any{key.Spec, key.Status.Tokens, key.Status.SecretName, key.Status.DeactivatedAt, key.Unreadable}
			}
			if diff := cmp.Diff(kept(stored[key]), kept(f.GetKey(key))); diff != "" {
				t.Errorf("%s has changed (-before +after):\n%s", key, diff)
			}
			if hasSecret := f.Secret(key+"-token") != nil; hasSecret != issued {
				t.Errorf("%s has a Secret: %t", key, hasSecret)
			}
		}
	}
}

func TestReconcile_ContinuesAfterAnUnreadableFieldIsCorrected(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("issued")
	f.WaitForReady("issued", v1alpha1.ReasonIssued)
	for _, name := range []string{"issued", "new"} {
		if name == "new" {
			f.CreateKey(name, func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
			f.WaitForReady(name, v1alpha1.ReasonDeactivated)
		}
		f.Env.UpdateInEtcd(t, f.Namespace, name, field{[]string{"spec", "secret"}, "ttl", "a while"}.set)
		want := stalled(v1alpha1.ReasonUnreadable, unreadableMessage("spec.secret.ttl"))
		if name == "issued" {
			want[v1alpha1.ConditionActive] = "True Unreadable: " + unreadableMessage("spec.secret.ttl")
		}
		f.assertConditions(f.WaitForReady(name, v1alpha1.ReasonUnreadable), want)
		f.Env.UpdateInEtcd(t, f.Namespace, name, field{[]string{"spec", "secret"}, "ttl", "1h"}.set)
	}
	f.assertConditions(f.WaitForReady("issued", v1alpha1.ReasonIssued),
		conditions(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.ReasonIssued, acceptedMinted))
	f.WaitForReady("new", v1alpha1.ReasonDeactivated)
}

func TestReconcile_AnUnreadableKeyIsInactiveAfterItExpires(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	f.CreateKey("frontend")
	f.WaitForReady("frontend", v1alpha1.ReasonIssued)
	f.Env.UpdateInEtcd(t, f.Namespace, "frontend", func(object map[string]any) {
		field{[]string{"spec", "secret"}, "ttl", "a while"}.set(object)
		field{[]string{"spec"}, "expiresAt", time.Now().Add(3 * time.Second).UTC().Format(time.RFC3339)}.set(object)
	})
	framework.Eventually(f, "the key is inactive", func() bool {
		active := meta.FindStatusCondition(f.GetKey("frontend").Status.Conditions, v1alpha1.ConditionActive)
		return active.Status == metav1.ConditionFalse && active.Reason == v1alpha1.ReasonUnreadable
	})
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"slices"
	"testing"
	"time"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestUpdatedAt_IsTheLastChangeByAClient(t *testing.T) {
	at := func(second int) metav1.Time { return metav1.Date(2026, 1, 1, 0, 0, second, 0, time.UTC) }
	entry := func(subresource string, second int) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Subresource: subresource, Time: new(at(second))}
	}
	for name, test := range map[string]struct {
		managed []metav1.ManagedFieldsEntry
		ended   *metav1.Time
		want    int
	}{
		"created":               {want: 1},
		"changed by its owner":  {managed: []metav1.ManagedFieldsEntry{entry("", 1), entry("", 3), entry("", 2)}, want: 3},
		"issued by the control": {managed: []metav1.ManagedFieldsEntry{entry("", 1), entry("status", 5)}, want: 1},
		"ended":                 {managed: []metav1.ManagedFieldsEntry{entry("", 2), entry("status", 9)}, ended: new(at(4)), want: 4},
		"changed after its end": {managed: []metav1.ManagedFieldsEntry{entry("", 7)}, ended: new(at(4)), want: 7},
	} {
		key := &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1), ManagedFields: test.managed},
			Status:     v1alpha1.APIKeyStatus{DeactivatedAt: test.ended},
		}
		if got := keyclient.UpdatedAt(key); !got.Equal(at(test.want).Time) {
			t.Errorf("%s: %s, want second %d", name, got, test.want)
		}
	}
}

func TestUpdatedAt_ChangesWithADeactivation(t *testing.T) {
	f := newFixtureWithController(t)
	key := f.create("Frontend App").Key
	if !keyclient.UpdatedAt(key).Equal(key.CreationTimestamp.Time) {
		t.Errorf("created at %s, and updated at %s already", key.CreationTimestamp, keyclient.UpdatedAt(key))
	}
	gomega.NewWithT(t).Eventually(time.Now, framework.Timeout, 10*time.Millisecond).
		Should(gomega.BeTemporally(">", key.CreationTimestamp.Add(time.Second)))
	deactivated, err := keyclient.Deactivate(t.Context(), f.Env.Client, f.Namespace, key.Name, key.UID)
	framework.Must(f, err)
	if !keyclient.UpdatedAt(deactivated).After(key.CreationTimestamp.Time) {
		t.Errorf("updated at %s", keyclient.UpdatedAt(deactivated))
	}
	if !slices.ContainsFunc(deactivated.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Subresource == "status" }) {
		t.Error("the controller has not written the status")
	}
}

func TestIsImported_UnlessCreateMintedTheToken(t *testing.T) {
	f := newFixture(t)
	for name, test := range map[string]struct {
		key  *v1alpha1.APIKey
		want bool
	}{
		"minted by the controller":           {f.Key("minted"), false},
		"minted by Create":                   {newKey(f.options("Frontend App")), false},
		"created, minted by the controller":  {newKey(f.options("Frontend App", func(o *keyclient.CreateOptions) { o.Secret = &v1alpha1.TokenSecret{} })), false},
		"a declared hash":                    {f.Key("imported", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = "sha256:" }), true},
		"a copy of a key without annotation": {copyOf(newKey(f.options("Frontend App"))), true},
	} {
		if got := keyclient.IsImported(test.key); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func newKey(options keyclient.CreateOptions) *v1alpha1.APIKey {
	key, _ := keyclient.NewKey(options)
	return key
}

// copyOf returns a key as 'kubectl apikey export' prints it.
func copyOf(key *v1alpha1.APIKey) *v1alpha1.APIKey {
	key.Labels, key.Annotations = keyclient.DeclaredMetadata(key)
	return key
}

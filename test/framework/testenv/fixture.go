// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// Fixture is a namespace of one test. Its methods act with full access, and end the test when they fail.
type Fixture struct {
	testing.TB
	Env       *Env
	Namespace string
}

// NewFixture creates a namespace in a control plane.
func NewFixture(t testing.TB, env *Env) *Fixture {
	t.Helper()
	return &Fixture{TB: t, Env: env, Namespace: env.Namespace(t)}
}

// NewKey returns a read-only key, with the app name "App <name>", and does not create it.
func NewKey(namespace, name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	for _, c := range change {
		c(key)
	}
	return key
}

// Create creates an object.
func (f *Fixture) Create(object client.Object) {
	f.Helper()
	framework.Must(f, f.Env.Client.Create(f.Context(), object))
}

// Key is [NewKey] in the namespace of the fixture.
func (f *Fixture) Key(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	return NewKey(f.Namespace, name, change...)
}

// CreateKey creates the key that Key returns.
func (f *Fixture) CreateKey(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	f.Helper()
	key := f.Key(name, change...)
	f.Create(key)
	return key
}

// GetKey reads a key.
func (f *Fixture) GetKey(name string) *v1alpha1.APIKey {
	f.Helper()
	key := &v1alpha1.APIKey{}
	framework.Must(f, f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: name}, key))
	return key
}

// Keys lists the keys of the namespace.
func (f *Fixture) Keys() []v1alpha1.APIKey {
	f.Helper()
	list := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), list, client.InNamespace(f.Namespace)))
	return list.Items
}

// UpdateKey changes a key, and retries on a conflict.
func (f *Fixture) UpdateKey(name string, change func(*v1alpha1.APIKey)) {
	f.Helper()
	framework.Eventually(f, name+" is updated", func() bool {
		key := f.GetKey(name)
		change(key)
		err := f.Env.Client.Update(f.Context(), key)
		if apierrors.IsConflict(err) {
			return false
		}
		framework.Must(f, err)
		return true
	})
}

// Deactivate deactivates a key.
func (f *Fixture) Deactivate(name string) {
	f.Helper()
	f.UpdateKey(name, func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
}

// WaitForReady waits until the Ready condition of a key has this reason for the current spec, and returns the key.
func (f *Fixture) WaitForReady(name, reason string) *v1alpha1.APIKey {
	f.Helper()
	var key *v1alpha1.APIKey
	framework.Eventually(f, name+" has the reason "+reason, func() bool {
		key = f.GetKey(name)
		ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == reason && key.Status.ObservedGeneration == key.Generation
	})
	return key
}

// Secret reads a Secret. It returns nil if the Secret does not exist.
func (f *Fixture) Secret(name string) *corev1.Secret {
	f.Helper()
	secret := &corev1.Secret{}
	err := f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	framework.Must(f, err)
	return secret
}

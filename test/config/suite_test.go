// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config_test tries what config/ installs: that the API server takes it, that every process may do what it has to and no more,
// and that the policies hold.
package config_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/testenv"
)

const (
	configDir       = "../../config"
	systemNamespace = "apikey-system"

	// soon bounds what the control plane does by itself, a little later.
	soon = 30 * time.Second
)

func TestMain(m *testing.M) { testenv.Main(m) }

// installation of config/default in the shared control plane.
var installation struct {
	once   sync.Once
	output string
	err    error
}

// installed returns the shared control plane once config/default is applied to it and the policies are in force.
func installed(t *testing.T) *testenv.Env {
	t.Helper()
	env := testenv.Shared(t)
	installation.once.Do(func() {
		installation.output, installation.err = env.Kubectl(t, "apply", "--server-side", "--kustomize", configDir+"/default")
		if installation.err == nil {
			installation.err = waitForPolicies(t, env)
		}
	})
	if installation.err != nil {
		t.Fatal(installation.err)
	}
	return env
}

// waitForPolicies returns when the API server refuses what the policies forbid: it takes notice of new ones a little later.
func waitForPolicies(t *testing.T, env *testenv.Env) error {
	t.Helper()
	key := newKey(env.Namespace(t), "probe")
	err := env.Client.Create(t.Context(), key)
	controller := serviceAccount(t, env, "apikey-controller")
	opaque := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "probe"}}
	return errors.Join(err, wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, soon, true, func(ctx context.Context) (bool, error) {
		return apierrors.IsForbidden(env.Client.Status().Update(ctx, key, client.DryRunAll)) &&
			apierrors.IsForbidden(controller.Create(ctx, opaque.DeepCopy(), client.DryRunAll)), nil
	}))
}

// serviceAccount is a client with the rights of a ServiceAccount of the system's namespace.
func serviceAccount(t *testing.T, env *testenv.Env, name string) client.Client {
	t.Helper()
	return clientFor(t, env, env.ServiceAccount(t, systemNamespace, name))
}

func clientFor(t *testing.T, env *testenv.Env, config *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(config, client.Options{Scheme: env.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(namespace, name string) *v1alpha1.APIKey {
	return &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: name, ReadAccess: true},
	}
}

func create(t *testing.T, c client.Client, object client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// expectAnswer expects a call to end with an error of exactly this message; "" is none.
func expectAnswer(t *testing.T, what string, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("%s:\n got: %s\nwant: %s", what, got, want)
	}
}

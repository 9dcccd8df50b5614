// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config_test tries what config/ installs: that the API server takes it, that every process may do what it has to and no more,
// and that the policies hold.
package config_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testcache"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	configDir       = "../../config"
	systemNamespace = "apikey-system"

	// tenantNamespace has a console.
	tenantNamespace = "tenant"

	// soon bounds what the control plane does by itself, a little later.
	soon = 30 * time.Second
)

func TestMain(m *testing.M) { testenv.Main(m) }

// installation in the shared control plane.
var installation struct {
	once   sync.Once
	output string
	err    error
}

// installed returns the shared control plane once config/default is applied to it, with the console of a tenant, and the policies are in
// force.
func installed(t *testing.T) *testenv.Env {
	t.Helper()
	env := testenv.Shared(t)
	installation.once.Do(func() {
		framework.Must(t, testcache.DependOn("config"))
		create(t, env.Client, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: tenantNamespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}})
		for _, kustomization := range kustomizations(t) {
			var output string
			output, installation.err = env.Kubectl(t, "apply", "--server-side", "--kustomize", kustomization)
			if installation.err != nil {
				return
			}
			installation.output += output
		}
		installation.err = waitForPolicies(t, env)
	})
	if installation.err != nil {
		t.Fatal(installation.err)
	}
	return env
}

// kustomizations returns the directories of what is installed.
func kustomizations(t *testing.T) []string {
	t.Helper()
	return []string{configDir + "/default", inNamespace(t, tenantNamespace, "overlays/console")}
}

// inNamespace returns the directory of a kustomization that has what a directory of config has, in this namespace.
func inNamespace(t *testing.T, namespace, of string) string {
	t.Helper()
	resource, err := filepath.Abs(filepath.Join(configDir, of))
	framework.Must(t, err)
	dir := t.TempDir()
	resource, err = filepath.Rel(dir, resource)
	framework.Must(t, err)
	kustomization := fmt.Sprintf("namespace: %s\nresources: [%s]\n", namespace, resource)
	framework.Must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600))
	return dir
}

// waitForPolicies returns when the API server refuses what the policies forbid: it takes notice of new ones a little later.
func waitForPolicies(t *testing.T, env *testenv.Env) error {
	t.Helper()
	key := newKey(env.Namespace(t), "probe")
	err := env.Client.Create(t.Context(), key)
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	opaque := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "probe"}}
	webhook := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "apikeys.keys.squirrel.dev"}}
	withoutWebhooks := client.RawPatch(types.MergePatchType, []byte(`{"webhooks":[]}`))
	return errors.Join(err, wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, soon, true, func(ctx context.Context) (bool, error) {
		return apierrors.IsForbidden(env.Client.Status().Update(ctx, key, client.DryRunAll)) &&
			apierrors.IsForbidden(controller.Create(ctx, opaque.DeepCopy(), client.DryRunAll)) &&
			apierrors.IsForbidden(controller.Patch(ctx, webhook.DeepCopy(), withoutWebhooks, client.DryRunAll)), nil
	}))
}

// serviceAccount is a client with the rights of a ServiceAccount.
func serviceAccount(t *testing.T, env *testenv.Env, namespace, name string) client.Client {
	t.Helper()
	return clientFor(t, env, env.ServiceAccount(t, namespace, name))
}

func clientFor(t *testing.T, env *testenv.Env, config *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(config, client.Options{Scheme: env.Scheme})
	framework.Must(t, err)
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
	framework.Must(t, c.Create(t.Context(), object))
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

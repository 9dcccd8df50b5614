// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"context"
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

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testcache"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	configDir       = "../../config"
	systemNamespace = "apikey-system"

	consoleNamespace = "default" // that of config/overlays/console
	tenantNamespace  = "tenant"  // has a console
)

func TestMain(m *testing.M) { testenv.Main(m) }

// installation is that in the shared control plane.
var installation struct {
	once   sync.Once
	output string
	err    error
}

// installed returns the shared control plane. The first call applies config/default and the console of a tenant, and waits until the API
// server enforces the policies.
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
			// --force-conflicts: the control plane has the CustomResourceDefinition already, from another field manager
			output, installation.err = env.Kubectl(t, "apply", "--server-side", "--force-conflicts", "--kustomize", kustomization)
			if installation.err != nil {
				return
			}
			installation.output += output
		}
		installation.err = waitForPolicies(t, env)
	})
	framework.Must(t, installation.err)
	return env
}

// kustomizations returns the directories of the installed kustomizations.
func kustomizations(t *testing.T) []string {
	t.Helper()
	return []string{configDir + "/default", writeKustomization(t, "namespace: "+tenantNamespace+"\nresources: [CONFIG/overlays/console]\n")}
}

// writeKustomization is [testenv.Kustomization] for the configuration in this repository.
func writeKustomization(t *testing.T, content string) (dir string) {
	t.Helper()
	return testenv.Kustomization(t, configDir, content)
}

// waitForPolicies waits until the API server enforces the policies, which it does some time after they are created.
func waitForPolicies(t *testing.T, env *testenv.Env) error {
	t.Helper()
	key := testenv.NewFixture(t, env).CreateKey("probe")
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	opaque := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "probe"}}
	webhook := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "apikeys.keys.squirrel.dev"}}
	withoutWebhooks := client.RawPatch(types.MergePatchType, []byte(`{"webhooks":[]}`))
	return wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, framework.Timeout, true, func(ctx context.Context) (bool, error) {
		return apierrors.IsForbidden(env.Client.Status().Update(ctx, key, client.DryRunAll)) &&
			apierrors.IsForbidden(controller.Create(ctx, opaque.DeepCopy(), client.DryRunAll)) &&
			apierrors.IsForbidden(controller.Patch(ctx, webhook.DeepCopy(), withoutWebhooks, client.DryRunAll)), nil
	})
}

// serviceAccount returns a client with the credentials of a ServiceAccount.
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

func create(t *testing.T, c client.Client, object client.Object) {
	t.Helper()
	framework.Must(t, c.Create(t.Context(), object))
}

// expectError expects a request to fail with exactly this message, or to succeed if the message is empty.
func expectError(t *testing.T, request string, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("%s:\n got: %s\nwant: %s", request, got, want)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gitops

package gitops_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	root            = "../.."
	systemNamespace = "apikey-system"

	// page has the manifests that this suite applies.
	page = "docs/operations/gitops.md"
)

func TestMain(m *testing.M) {
	if err := os.Setenv("KUBECTL_APPLYSET", "true"); err != nil { // enables the flag --applyset of kubectl
		panic(err)
	}
	testenv.Main(m)
}

func TestGitOps(t *testing.T) {
	env := testenv.Start(t)
	startOperator(t, env)
	t.Run("Flux", func(t *testing.T) { testFlux(t, env) })
	t.Run("Helm", func(t *testing.T) { testHelm(t, env) })
	t.Run("Kubectl", func(t *testing.T) { testKubectl(t, env) })
}

// startOperator runs the controller with its webhook, its rights and the policies, and returns when the API server calls the webhook.
func startOperator(t *testing.T, env *testenv.Env) {
	t.Helper()
	for _, source := range []string{
		"--filename=" + root + "/config/default/namespace.yaml", "--kustomize=" + root + "/config/rbac", "--kustomize=" + root + "/config/policies",
	} {
		_, err := env.Kubectl(t, "apply", "--server-side", source)
		framework.Must(t, err)
	}
	port, certDir := env.Webhook(t, root+"/config/webhook/validating.yaml")
	operator.StartController(t, env.ServiceAccount(t, systemNamespace, "apikey-controller"), "--system-namespace="+systemNamespace,
		"--webhook=true", "--webhook-listen-address=127.0.0.1:"+strconv.Itoa(port), "--webhook-cert-dir="+certDir)

	probe := testenv.NewKey(env.Namespace(t), "probe", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = importedHash })
	warned := false
	config := rest.CopyConfig(env.Config)
	config.WarningHandler = warningHandler(func() { warned = true })
	c, err := client.New(config, client.Options{Scheme: env.Scheme})
	framework.Must(t, err)
	framework.Eventually(t, "the API server calls the webhook", func() bool {
		err := c.Create(t.Context(), probe.DeepCopy(), client.DryRunAll)
		return err == nil && warned
	})
}

// importedHash is the hash of a token that was created elsewhere.
var importedHash = "sha256:" + strings.Repeat("0a", 32)

// warningHandler is called for each warning of the API server.
type warningHandler func()

// HandleWarningHeader implements rest.WarningHandler.
func (h warningHandler) HandleWarningHeader(int, string, string) { h() }

// fixture is a namespace of one case, whose tests are the methods of fixtures that embed it.
type fixture struct{ *testenv.Fixture }

func newFixture(t *testing.T, env *testenv.Env) fixture {
	t.Helper()
	f := fixture{testenv.NewFixture(t, env)}
	t.Cleanup(func() {
		if t.Failed() {
			keys, err := env.ControlPlane.Kubectl(context.Background(), "", "get", "apikeys", "--namespace="+f.Namespace, "--output=yaml")
			t.Logf("the keys: %v\n%s", err, keys)
		}
	})
	return f
}

// app is the app name of the keys of a case that replace each other.
const app = "Frontend App"

// heldMessage is the message of a key whose app name another key holds.
func heldMessage(holder string) string {
	return fmt.Sprintf("App name %q is held by APIKey %q: deactivate or delete that key, or create this one with another app name.", app, holder)
}

// heldWarning is the warning of kubectl when a key is renamed from old.
const heldWarning = `Warning: App name "Frontend App" is held by APIKey "old": deactivate or delete that key, or create this one with another app name. ` +
	"Until then, this key is not accepted.\n"

// manifest returns the manifest of a key with read access and these further lines of its spec.
func (f fixture) manifest(name, appName string, spec ...string) string {
	return fmt.Sprintf(`apiVersion: keys.squirrel.dev/v1alpha1
kind: APIKey
metadata:
  name: %s
  namespace: %s
  labels: {team: shop}
  annotations: {owner: ada}
spec:
  %s
`, name, f.Namespace, strings.Join(append([]string{"appName: " + appName, "readAccess: true"}, spec...), "\n  "))
}

// snippet returns a manifest of the page, with the namespace of the fixture.
func (f fixture) snippet(name, namespace string) string {
	f.Helper()
	block := docsnippets.CodeBlockOf(f, page, name)
	return docsnippets.Replace(f, block, map[string]string{"namespace: " + namespace: "namespace: " + f.Namespace})
}

// expectReady fails the test unless the Ready condition of the key has this status and reason.
func (f fixture) expectReady(name string, status metav1.ConditionStatus, reason string) *v1alpha1.APIKey {
	f.Helper()
	key := f.GetKey(name)
	ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
	if ready.Status != status || ready.Reason != reason || key.Status.ObservedGeneration != key.Generation {
		f.Errorf("%s has Ready=%s with the reason %s for generation %d, want %s with %s for %d",
			name, ready.Status, ready.Reason, key.Status.ObservedGeneration, status, reason, key.Generation)
	}
	return key
}

// expectIssued fails the test unless the key is issued and its token was handed over. It returns the Secret.
func (f fixture) expectIssued(name string) *corev1.Secret {
	f.Helper()
	key := f.expectReady(name, metav1.ConditionTrue, v1alpha1.ReasonIssued)
	secret := f.Secret(key.Status.SecretName)
	if secret == nil {
		f.Fatalf("the Secret %q of %s does not exist", key.Status.SecretName, name)
	}
	return secret
}

// expectGone waits until a key and its Secret do not exist.
func (f fixture) expectGone(name string) {
	f.Helper()
	framework.Eventually(f, name+" and its Secret are deleted", func() bool {
		err := f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: name}, &v1alpha1.APIKey{})
		return apierrors.IsNotFound(err) && f.Secret(name+"-token") == nil
	})
}

// kubectl runs kubectl in the namespace of the fixture, and returns its output.
func (f fixture) kubectl(args ...string) string {
	f.Helper()
	output, err := f.tryKubectl(args...)
	framework.Must(f, err)
	return output
}

func (f fixture) tryKubectl(args ...string) (string, error) {
	f.Helper()
	return f.Env.Kubectl(f, append([]string{"--namespace=" + f.Namespace}, args...)...)
}

// expectEqual fails the test if a text differs.
func (f fixture) expectEqual(what, got, want string) {
	f.Helper()
	if got != want {
		f.Errorf("%s\n got: %s\nwant: %s", what, got, want)
	}
}

// kubectlAPIKey runs the kubectl plugin in the namespace of the fixture, and returns its output.
func (f fixture) kubectlAPIKey(args ...string) string {
	f.Helper()
	command := exec.CommandContext(f.Context(), binaries.Path(f, "kubectl-apikey"), append(args, "--namespace="+f.Namespace)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+f.Env.ControlPlane.Kubeconfig())
	output, err := process.Output(f.Context(), command)
	framework.Must(f, err)
	return output
}

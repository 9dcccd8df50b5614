// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testcache"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const holdingKeys = `
The keys and their Secrets were kept. The keys are valid again when you reinstall apikey-operator. To list them:
  kubectl get apikeys --all-namespaces
To delete all keys, their Secrets and the CustomResourceDefinition, permanently:
  kubectl delete customresourcedefinition apikeys.keys.squirrel.dev
`

func TestUninstall_KeepsOnlyTheKeys(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	framework.Must(t, testcache.DependOn("config", "hack/uninstall"))
	env := testenv.Start(t)
	metadata := func(name, label string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: systemNamespace, Name: name, Labels: map[string]string{label: "apikey-operator"}}
	}
	byController, byCertManager := "app.kubernetes.io/managed-by", "app.kubernetes.io/name"
	lease := metav1.ObjectMeta{Namespace: systemNamespace, Name: "controller.keys.squirrel.dev"}
	token := metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "frontend-token"}
	install := func() {
		_, err := env.Kubectl(t, "apply", "--server-side", "--force-conflicts", "--kustomize", configDir+"/default")
		g.Expect(err).NotTo(HaveOccurred())
		create(t, env.Client, &coordinationv1.Lease{ObjectMeta: lease})
		create(t, env.Client, &corev1.Secret{ObjectMeta: metadata("apikey-operator-ca", byController)})
		create(t, env.Client, &corev1.ConfigMap{ObjectMeta: metadata("apikey-operator-ca", byController)})
		create(t, env.Client, &corev1.Secret{ObjectMeta: metadata("apikey-authenticator-tls", byCertManager)})
	}
	installed := func() string {
		names, err := env.Kubectl(t, "get", "--kustomize", configDir+"/default", "--ignore-not-found", "--output=name")
		g.Expect(err).NotTo(HaveOccurred())
		return names
	}
	crd := "customresourcedefinition.apiextensions.k8s.io/apikeys.keys.squirrel.dev\n"

	install()
	create(t, env.Client, testenv.NewKey(metav1.NamespaceDefault, "frontend"))
	create(t, env.Client, &corev1.Secret{ObjectMeta: token})
	g.Expect(uninstall(t, env)).To(HaveSuffix("\nnamespace \"apikey-system\" deleted\n" + holdingKeys))
	g.Expect(installed()).To(Equal(crd))

	install()
	create(t, env.Client, testenv.NewKey(systemNamespace, "backend"))
	create(t, env.Client, &corev1.Secret{ObjectMeta: metadata("backend-token", byController), Type: v1alpha1.SecretTypeToken})
	g.Expect(uninstall(t, env)).To(HaveSuffix(`
The namespace apikey-system was kept, because it contains other objects:
apikey.keys.squirrel.dev/backend
secret/backend-token
To delete it with these objects:
  kubectl delete namespace apikey-system
` + holdingKeys))
	g.Expect(installed()).To(Equal("namespace/apikey-system\n" + crd))

	for _, kept := range []client.Object{
		testenv.NewKey(metav1.NamespaceDefault, "frontend"), testenv.NewKey(systemNamespace, "backend"), &corev1.Secret{ObjectMeta: token},
	} {
		g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(kept), kept)).To(Succeed())
	}
}

func TestArgoCDAndFlux_DoNotPruneTheKeys(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	holdingKeys, err := installed(t).Kubectl(t, "get", "namespaces,customresourcedefinitions", "--selector=keys.squirrel.dev/holds-keys",
		`--output=go-template={{range .items}}{{.kind}} {{index .metadata.annotations "argocd.argoproj.io/sync-options"}} `+
			`{{index .metadata.annotations "kustomize.toolkit.fluxcd.io/prune"}}{{"\n"}}{{end}}`)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Split(strings.TrimSpace(holdingKeys), "\n")).To(ConsistOf(
		"Namespace Prune=false,Delete=false disabled", "CustomResourceDefinition Prune=false,Delete=false disabled"))
}

// uninstall runs hack/uninstall and returns its output.
func uninstall(t *testing.T, env *testenv.Env) string {
	t.Helper()
	assets, err := controlplane.FindAssets()
	framework.Must(t, err)
	command := exec.CommandContext(t.Context(), "../../hack/uninstall", filepath.Join(assets, "kubectl"), "config/default")
	command.Env = append(os.Environ(), "KUBECONFIG="+env.Kubeconfig(t, env.Config))
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return string(output)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build chart

package chart_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestDefaultValues_RenderTheObjectsOfTheInstaller(t *testing.T) {
	t.Parallel()
	dist := t.TempDir()
	_, err := process.Output(t.Context(), exec.CommandContext(t.Context(), root+"/hack/installer", kubectl(t), "config/default", dist))
	framework.Must(t, err)
	installer, err := os.ReadFile(filepath.Join(dist, "install.yaml"))
	framework.Must(t, err)
	expectSame(t, parse(t, string(installer)), parse(t, render(t, "apikey-system", "")))
}

func TestCertManager_RendersTheObjectsOfTheOverlay(t *testing.T) {
	t.Parallel()
	expectSame(t, kustomize(t, "overlays/cert-manager"), parse(t, render(t, "apikey-system", image+"certificates: {source: cert-manager}")))
}

func TestWithoutTheWebhook_RendersTheObjectsOfTheOverlay(t *testing.T) {
	t.Parallel()
	expectSame(t, kustomize(t, "overlays/no-webhook"), parse(t, render(t, "apikey-system", image+"webhook: {enabled: false}")))
}

func TestScopes_RenderTheObjectsOfTheOverlays(t *testing.T) {
	t.Parallel()
	expectSame(t, kustomize(t, "overlays/cluster"), parse(t, render(t, "default", image+"scope: cluster")))
	expectSame(t, kustomize(t, "overlays/namespaced"), parse(t, render(t, "default", image+"scope: namespaces")))
}

// The further namespace has the objects of the overlay with a subject in the release's namespace.
func TestScopeNamespaces_RendersTheRolesInEachNamespace(t *testing.T) {
	t.Parallel()
	rendered := render(t, "shop", image+"scope: namespaces\nnamespaces: [shop, shop-staging]")
	for _, name := range []string{"apikey-controller-keys", "apikey-authenticator-keys"} {
		for _, namespace := range []string{"shop", "shop-staging"} {
			for _, kind := range []string{"Role", "RoleBinding"} {
				if count := countObjects(t, rendered, kind, name, namespace); count != 1 {
					t.Errorf("got %d times %s %s in %s, want 1", count, kind, name, namespace)
				}
			}
		}
	}
	if count := strings.Count(rendered, "--namespaces=$(POD_NAMESPACE),shop-staging\n"); count != 2 {
		t.Errorf("got the flag %d times, want 2", count)
	}
}

// countObjects returns how many manifests have this kind, name and namespace, and for a RoleBinding a subject in the namespace shop.
func countObjects(t *testing.T, manifests, kind, name, namespace string) (count int) {
	t.Helper()
	for manifest := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		o := object{}
		framework.Must(t, yaml.UnmarshalStrict([]byte(manifest), &o))
		if len(o) == 0 {
			continue
		}
		scalars := flat(o)
		isSubject := kind != "RoleBinding" || scalars["subjects[0].namespace"] == "shop"
		if scalars["kind"] == kind && scalars["metadata.name"] == name && scalars["metadata.namespace"] == namespace && isSubject {
			count++
		}
	}
	return count
}

func TestCertManagerAndConsole_RenderTheObjectsOfTheOverlays(t *testing.T) {
	t.Parallel()
	want := kustomize(t, "overlays/cert-manager")
	maps.Copy(want, kustomize(t, "overlays/console-cert-manager"))
	values := image + "certificates: {source: cert-manager}\nconsole: {enabled: true, namespace: default}"
	expectSame(t, want, parse(t, render(t, "apikey-system", values)))
}

func TestConsoleAndPrometheus_RenderTheObjectsOfTheOverlays(t *testing.T) {
	t.Parallel()
	want := kustomize(t, "default")
	addArg(want["Deployment/apikey-controller"], "--console-namespaces=default") // as config/overlays/console describes
	maps.Copy(want, kustomize(t, "overlays/console"))
	maps.Copy(want, kustomize(t, "overlays/prometheus"))
	values := image + "console: {enabled: true, namespace: default}\nprometheus: {enabled: true}"
	expectSame(t, want, parse(t, render(t, "apikey-system", values)))
}

// addArg appends an argument of the container of a Deployment.
func addArg(deployment object, arg string) {
	pod := deployment["spec"].(object)["template"].(object)["spec"].(object)
	container := pod["containers"].([]any)[0].(object)
	container["args"] = append(container["args"].([]any), arg)
}

// image is the image of config/.
const image = "image: {repository: apikey-operator, tag: latest, digest: ''}\n"

// expectSame fails the test unless kustomize and Helm render the same objects. It checks the labels and annotations that only Helm sets, and
// then ignores them.
func expectSame(t *testing.T, kustomized, rendered map[string]object) {
	t.Helper()
	delete(kustomized, "Namespace/apikey-system") // helm install --create-namespace creates it
	for name, o := range rendered {
		labels := o["metadata"].(object)["labels"].(object)
		for label, want := range map[string]any{"app.kubernetes.io/instance": release, "app.kubernetes.io/managed-by": "Helm"} {
			if labels[label] != want {
				t.Errorf("%s has the label %s=%v, want %v", name, label, labels[label], want)
			}
		}
		for _, label := range []string{
			"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart",
		} {
			delete(labels, label)
		}
	}
	if definition := rendered["CustomResourceDefinition/apikeys.keys.squirrel.dev"]; definition != nil {
		annotations := definition["metadata"].(object)["annotations"].(object)
		if annotations["helm.sh/resource-policy"] != "keep" {
			t.Error("helm uninstall would delete the CustomResourceDefinition, and every key with it")
		}
		delete(annotations, "helm.sh/resource-policy")
	}
	if diff := cmp.Diff(kustomized, rendered); diff != "" {
		t.Errorf("objects differ (-kustomize +chart):\n%s", diff)
	}
}

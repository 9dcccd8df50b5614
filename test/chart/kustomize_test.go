// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build chart

package chart_test

import (
	"maps"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/test/framework"
)

func TestDefaultValues_RenderTheObjectsOfTheInstaller(t *testing.T) {
	t.Parallel()
	installer, err := os.ReadFile(root + "/dist/install.yaml")
	framework.Must(t, err)
	expectSame(t, parse(t, string(installer)), parse(t, render(t, "apikey-system", "")))
}

func TestCertManager_RendersTheObjectsOfTheOverlay(t *testing.T) {
	t.Parallel()
	expectSame(t, kustomize(t, "overlays/cert-manager"), parse(t, render(t, "apikey-system", image+"certificates: {source: cert-manager}")))
}

func TestConsoleAndPrometheus_RenderTheObjectsOfTheOverlays(t *testing.T) {
	t.Parallel()
	want := kustomize(t, "default")
	maps.Copy(want, kustomize(t, "overlays/console"))
	maps.Copy(want, kustomize(t, "overlays/prometheus"))
	values := image + "console: {enabled: true, namespace: default}\nprometheus: {enabled: true}"
	expectSame(t, want, parse(t, render(t, "apikey-system", values)))
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
	annotations := rendered["CustomResourceDefinition/apikeys.keys.squirrel.dev"]["metadata"].(object)["annotations"].(object)
	if annotations["helm.sh/resource-policy"] != "keep" {
		t.Error("helm uninstall would delete the CustomResourceDefinition, and every key with it")
	}
	delete(annotations, "helm.sh/resource-policy")
	if diff := cmp.Diff(kustomized, rendered); diff != "" {
		t.Errorf("objects differ (-kustomize +chart):\n%s", diff)
	}
}

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

func TestByDefaultTheChartInstallsWhatTheInstallerDoes(t *testing.T) {
	t.Parallel()
	installer, err := os.ReadFile(root + "/dist/install.yaml")
	framework.Must(t, err)
	expectSame(t, parse(t, string(installer)), parse(t, render(t, "apikey-system", "")))
}

func TestWithCertManagerTheChartInstallsWhatTheOverlayDoes(t *testing.T) {
	t.Parallel()
	expectSame(t, kustomize(t, "overlays/cert-manager"), parse(t, render(t, "apikey-system", image+"certificates: {source: cert-manager}")))
}

func TestTheConsoleAndWhatPrometheusReadsAreThoseOfTheOverlays(t *testing.T) {
	t.Parallel()
	want := kustomize(t, "default")
	maps.Copy(want, kustomize(t, "overlays/console"))
	maps.Copy(want, kustomize(t, "overlays/prometheus"))
	values := image + "console: {enabled: true, namespace: default}\nprometheus: {enabled: true}"
	expectSame(t, want, parse(t, render(t, "apikey-system", values)))
}

// image is the one that config/ names.
const image = "image: {repository: apikey-operator, tag: latest, digest: ''}\n"

// expectSame expects the same objects, but for what is Helm's.
func expectSame(t *testing.T, installed, rendered map[string]object) {
	t.Helper()
	delete(installed, "Namespace/apikey-system") // helm install --create-namespace makes it
	for name, o := range rendered {
		labels := o["metadata"].(object)["labels"].(object)
		for label, want := range map[string]any{"app.kubernetes.io/instance": release, "app.kubernetes.io/managed-by": "Helm"} {
			if labels[label] != want {
				t.Errorf("%s has the label %s: %v", name, label, labels[label])
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
		t.Error("Helm may delete the CustomResourceDefinition, and with it all keys")
	}
	delete(annotations, "helm.sh/resource-policy")
	if diff := cmp.Diff(installed, rendered); diff != "" {
		t.Errorf("kustomize installs -, the chart +:\n%s", diff)
	}
}

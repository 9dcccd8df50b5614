// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build chart

package chart_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
)

// packageChart runs what `make chart` runs, and returns the combined output.
func packageChart(t *testing.T, dist, version, image string) (string, error) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), root+"/hack/chart", binaries.Path(t, "tools", "helm"), dist, version, image).CombinedOutput()
	return string(output), err
}

func TestPackage_SetsVersionAndImage(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0", 64)
	for image, want := range map[string]string{
		"":                                "apikey-operator:v1.2.3",
		"registry:5000/keys:v9":           "registry:5000/keys:v9",
		"registry:5000/keys@" + digest:    "registry:5000/keys@" + digest,
		"registry:5000/keys:v9@" + digest: "registry:5000/keys:v9@" + digest,
	} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			var archives []string
			for range 2 {
				dist := t.TempDir()
				if output, err := packageChart(t, dist, "v1.2.3", image); err != nil {
					t.Fatal(err, output)
				}
				archive, err := os.ReadFile(filepath.Join(dist, "apikey-operator-1.2.3.tgz"))
				framework.Must(t, err)
				archives = append(archives, string(archive))

				manifests, err := binaries.Helm(t, "template", release, filepath.Join(dist, "apikey-operator-1.2.3.tgz"))
				framework.Must(t, err)
				deployment := parse(t, manifests)["Deployment/apikey-controller"]
				got := flat(deployment)
				if image := got["spec.template.spec.containers[0].image"]; image != want {
					t.Errorf("the image is %s, want %s", image, want)
				}
				version := fmt.Sprint(got["metadata.labels.app.kubernetes.io/version"], " ", got["metadata.labels.helm.sh/chart"])
				if want := "v1.2.3 apikey-operator-1.2.3"; version != want {
					t.Errorf("the version is %s, want %s", version, want)
				}
			}
			if archives[0] != archives[1] {
				t.Error("packaging the same chart twice made different archives")
			}
		})
	}
}

func TestPackage_VersionsWithBuildMetadataGiveValidLabelsAndImages(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 39) // the label of the chart is cut after the "+"
	for version, want := range map[string]struct{ version, chart, image string }{
		"v1.0.0+0a1b2c":               {"v1.0.0_0a1b2c", "apikey-operator-1.0.0_0a1b2c", "apikey-operator:v1.0.0_0a1b2c"},
		"v1.0.0-" + long + "x+0a1b2c": {"v1.0.0-" + long + "x_0a1b2c", "apikey-operator-1.0.0-" + long + "x", "apikey-operator:v1.0.0-" + long + "x_0a1b2c"},
	} {
		dist := t.TempDir()
		if output, err := packageChart(t, dist, version, ""); err != nil {
			t.Fatal(err, output)
		}
		archives, err := filepath.Glob(filepath.Join(dist, "*.tgz"))
		framework.Must(t, err)
		manifests, err := binaries.Helm(t, "template", release, archives[0])
		framework.Must(t, err)
		for name, o := range parse(t, manifests) {
			got := flat(o)
			if got["metadata.labels.app.kubernetes.io/version"] != want.version || got["metadata.labels.helm.sh/chart"] != want.chart {
				t.Errorf("the labels of %s are %v", name, o["metadata"].(object)["labels"])
			}
			if image := got["spec.template.spec.containers[0].image"]; o["kind"] == "Deployment" && image != want.image {
				t.Errorf("the image of %s is %s, want %s", name, image, want.image)
			}
		}
	}
}

func TestPackage_AsADependencyWithACondition(t *testing.T) {
	t.Parallel()
	parent := filepath.Join(t.TempDir(), "parent")
	framework.Must(t, os.MkdirAll(filepath.Join(parent, "charts"), 0o755))
	framework.Must(t, os.CopyFS(filepath.Join(parent, "charts", "apikey-operator"), os.DirFS(chart)))
	framework.Must(t, os.WriteFile(filepath.Join(parent, "Chart.yaml"), []byte(`
apiVersion: v2
name: parent
version: 1.0.0
dependencies: [{name: apikey-operator, version: ">=0.0.0-0", condition: apikey-operator.enabled}]
`), 0o600))
	for values, want := range map[string]int{
		"":                                  len(parse(t, render(t, "apikey-system", ""))),
		"apikey-operator: {enabled: true}":  len(parse(t, render(t, "apikey-system", ""))),
		"apikey-operator: {enabled: false}": 0,
	} {
		output, err := binaries.Helm(t, "template", release, parent, "--namespace=apikey-system", with(t, "global: {region: west}\n"+values))
		framework.Must(t, err)
		if got := len(parse(t, output)); got != want {
			t.Errorf("%q renders %d objects, want %d", values, got, want)
		}
	}
}

func TestPackage_RejectsInvalidArguments(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ version, image, want string }{
		{"latest", "", "VERSION=latest is not a semantic version: give one such as v1.2.3.\n"},
		{"v1.2.3", "registry:5000/keys", "IMAGE=registry:5000/keys has neither a tag nor a digest: give NAME:TAG or NAME@sha256:DIGEST.\n"},
	} {
		dist := filepath.Join(t.TempDir(), "dist")
		output, err := packageChart(t, dist, test.version, test.image)
		if err == nil || output != test.want {
			t.Errorf("%v\n got: %swant: %s", err, output, test.want)
		}
		if _, err := os.Stat(dist); !os.IsNotExist(err) {
			t.Errorf("a chart was written: %v", err)
		}
	}
}

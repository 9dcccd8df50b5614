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
)

// packageChart runs what `make chart` runs, and returns the combined output.
func packageChart(t *testing.T, dist, version, image string) (string, error) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), root+"/hack/chart", helm, dist, version, image).CombinedOutput()
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

				manifests, err := runHelm(t, "template", release, filepath.Join(dist, "apikey-operator-1.2.3.tgz"))
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

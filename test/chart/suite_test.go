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

	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	root  = "../.."
	chart = root + "/dist/chart/apikey-operator" // as `make chart` packages it

	// release is the name of the release in all tests.
	release = "keys"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// object is a manifest.
type object = map[string]any

// render returns the objects that the chart installs with these values. Later values override earlier ones.
func render(t *testing.T, namespace string, values ...string) string {
	t.Helper()
	args := []string{"template", release, chart, "--namespace", namespace}
	for _, more := range values {
		args = append(args, with(t, more))
	}
	output, err := binaries.Helm(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// with writes the values to a file and returns the flag for it.
func with(t *testing.T, values string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	framework.Must(t, os.WriteFile(file, []byte(values), 0o600))
	return fmt.Sprintf("--values=%q", file) // quoted, because the path may have commas
}

// kustomize returns the objects of a directory of config/, by kind and name.
func kustomize(t *testing.T, dir string) map[string]object {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), kubectl(t), "kustomize", filepath.Join(root, "config", dir)).Output()
	framework.Must(t, err)
	return parse(t, string(output))
}

// kubectl returns the path of kubectl.
func kubectl(t *testing.T) string {
	t.Helper()
	assets, err := controlplane.FindAssets()
	framework.Must(t, err)
	return filepath.Join(assets, "kubectl")
}

// parse returns the objects of a YAML stream, by kind and name.
func parse(t *testing.T, manifests string) map[string]object {
	t.Helper()
	objects := map[string]object{}
	for manifest := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		o := object{}
		framework.Must(t, yaml.UnmarshalStrict([]byte(manifest), &o))
		if len(o) == 0 {
			continue
		}
		name := fmt.Sprintf("%v/%v", o["kind"], o["metadata"].(object)["name"])
		if objects[name] != nil {
			t.Fatalf("%s exists twice", name)
		}
		objects[name] = o
	}
	return objects
}

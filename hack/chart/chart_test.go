// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework/testcache"
)

// What changes in config/ must not be lost on the way into the chart.
func TestWhatItWasNotToldOfStopsIt(t *testing.T) {
	t.Chdir("../..")
	assets, err := controlplane.FindAssets()
	if err := errors.Join(err, testcache.Note("config")); err != nil {
		t.Fatal(err)
	}
	const overlay, console = "config/overlays/cert-manager", "config/overlays/console"
	built := map[string]string{} // what kubectl says of a directory, once for all cases
	kustomize := func(dir string) ([]object, error) {
		if _, known := built[dir]; !known {
			output, err := buildKustomization(filepath.Join(assets, "kubectl"), dir)
			if err != nil {
				return nil, err
			}
			built[dir] = output
		}
		return parseObjects(built[dir])
	}
	everywhere := func(string) bool { return true }
	only := func(dir string) func(string) bool { return func(other string) bool { return dir == other } }
	lack := func(kind, name string) func([]object) []object {
		return func(objects []object) (rest []object) {
			for _, o := range objects {
				if o["kind"] != kind || o["metadata"].(object)["name"] != name {
					rest = append(rest, o)
				}
			}
			return rest
		}
	}
	change := func(kind, name string, change func(object)) func([]object) []object {
		return func(objects []object) []object {
			for _, o := range objects {
				if o["kind"] == kind && o["metadata"].(object)["name"] == name {
					change(o)
				}
			}
			return objects
		}
	}
	pod := func(change func(pod object)) func(object) {
		return func(deployment object) {
			pod, err := in[object](deployment, "spec", "template", "spec")
			if err != nil {
				t.Fatal(err)
			}
			change(pod)
		}
	}
	for want, test := range map[string]struct {
		where func(dir string) bool
		is    func([]object) []object
	}{
		"": {everywhere, func(objects []object) []object { return objects }},
		"config/ has Secret/new, which hack/chart does not know: say there when the chart has it": {only(console), func(objects []object) []object {
			return append(objects, object{"kind": "Secret", "metadata": object{"name": "new"}})
		}},
		"config/ lacks what hack/chart knows: [ServiceAccount/apikey-console]": {only(console), lack("ServiceAccount", "apikey-console")},
		"config/overlays/cert-manager lacks Service/apikey-metrics":            {only(overlay), lack("Service", "apikey-metrics")},
		"Deployment/apikey-controller: it is to have one container, controller": {everywhere, change("Deployment", "apikey-controller",
			pod(func(pod object) { pod["containers"] = append(pod["containers"].([]any), object{"name": "sidecar"}) }))},
		"Deployment/apikey-controller: it has nodeSelector, which is a value without a default": {everywhere,
			change("Deployment", "apikey-controller", pod(func(pod object) { pod["nodeSelector"] = object{"disk": "ssd"} }))},
		"Deployment/apikey-controller: its image is other:v1, not apikey-operator:latest as that of others": {everywhere,
			change("Deployment", "apikey-controller", pod(func(pod object) { pod["containers"].([]any)[0].(object)["image"] = "other:v1" }))},
		"Service/apikey-metrics: spec: clusterIP: None and 10.0.0.1 cannot be one template": {only(overlay),
			change("Service", "apikey-metrics", func(service object) { service["spec"].(object)["clusterIP"] = "10.0.0.1" })},
	} {
		t.Run(want, func(t *testing.T) {
			_, err := newChart(func(dir string) ([]object, error) {
				objects, err := kustomize(dir)
				if test.where(dir) {
					objects = test.is(objects)
				}
				return objects, err
			})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("\n got: %s\nwant: %s", got, want)
			}
		})
	}
}

func TestArgumentsAreExamined(t *testing.T) {
	t.Chdir("../..")
	assets, err := controlplane.FindAssets()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "chart")
	for _, test := range []struct{ version, image, want string }{
		{"latest", "", "VERSION=latest is no version: give one such as v1.2.3"},
		{"v1.2.3", "registry:5000/keys", "IMAGE=registry:5000/keys does not say which version of the image: give NAME:TAG or NAME@sha256:DIGEST"},
	} {
		err := run([]string{filepath.Join(assets, "kubectl"), test.version, test.image, dir})
		if err == nil || err.Error() != test.want {
			t.Errorf("%v\nwant: %s", err, test.want)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("it left a chart: %v", err)
		}
	}
}

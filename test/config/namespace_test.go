// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

func TestNamespace_CanBeChanged(t *testing.T) {
	env := installed(t)
	env.InstallCertManagerCRDs(t)
	for _, directory := range []string{"default", "overlays/cert-manager", "overlays/no-webhook"} {
		t.Run(directory, func(t *testing.T) {
			kustomization := writeKustomization(t, fmt.Sprintf(
				"namespace: %s\nresources: [CONFIG/%s]\ntransformers: [CONFIG/namespace]\n", env.Namespace(t), directory))
			manifests, err := env.Kubectl(t, "kustomize", kustomization)
			framework.Must(t, err)
			for line := range strings.SplitSeq(manifests, "\n") {
				if strings.Contains(line, systemNamespace) {
					t.Errorf("got %q, want the other namespace", line)
				}
			}
			output, err := env.Kubectl(t, "apply", "--server-side", "--dry-run=server", "--kustomize", kustomization)
			if err != nil {
				t.Errorf("%v\n%s", err, output)
			}
		})
	}
}

// The console's certificate is issued by the controller, or by cert-manager for names of the other namespace.
func TestNamespace_OfTheConsoleCanBeChanged(t *testing.T) {
	env := installed(t)
	env.InstallCertManagerCRDs(t)
	namespace := env.Namespace(t)
	for _, transformers := range []string{"console]\n", "console-cert-manager]\ntransformers: [CONFIG/overlays/console-cert-manager/namespace]\n"} {
		kustomization := writeKustomization(t, "namespace: "+namespace+"\nresources: [CONFIG/overlays/"+transformers)
		manifests, err := env.Kubectl(t, "kustomize", kustomization)
		framework.Must(t, err)
		for line := range strings.SplitSeq(manifests, "\n") {
			if strings.Contains(line, "default") {
				t.Errorf("got %q, want the other namespace", line)
			}
		}
		output, err := env.Kubectl(t, "apply", "--server-side", "--dry-run=server", "--kustomize", kustomization)
		if err != nil {
			t.Errorf("%v\n%s", err, output)
		}
	}
}

// The RoleBinding of the controller in the namespace of the console names the controller's namespace.
func TestNamespace_OfTheControllerCanBeChangedTogetherWithAConsole(t *testing.T) {
	env := installed(t)
	operator := writeKustomization(t, "namespace: keys\nresources: [CONFIG/default]\n")
	console := writeKustomization(t, "namespace: shop\nresources: [CONFIG/overlays/console]\n")
	manifests, err := env.Kubectl(t, "kustomize", writeKustomization(t, fmt.Sprintf(
		"resources: [../../%s, ../../%s]\ntransformers: [CONFIG/namespace]\n", lastTwo(operator), lastTwo(console))))
	framework.Must(t, err)
	if strings.Contains(manifests, systemNamespace) {
		t.Errorf("got the namespace %s, want keys:\n%s", systemNamespace, manifests)
	}
}

// lastTwo returns the last two elements of the path of a temporary directory.
func lastTwo(dir string) string {
	return filepath.Join(filepath.Base(filepath.Dir(dir)), filepath.Base(dir))
}

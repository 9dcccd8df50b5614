// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

func TestNamespace_CanBeChanged(t *testing.T) {
	env := installed(t)
	installCertManagerCRDs(t, env)
	for _, directory := range []string{"default", "overlays/cert-manager"} {
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

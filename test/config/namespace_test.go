// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

func TestEverythingFollowsIntoAnotherNamespace(t *testing.T) {
	env := installed(t)
	installCertManagerDefinitions(t, env)
	config, err := filepath.Abs(configDir)
	framework.Must(t, err)
	for _, of := range []string{"default", "overlays/cert-manager"} {
		t.Run(of, func(t *testing.T) {
			dir, err := filepath.Abs(t.TempDir())
			framework.Must(t, err)
			config, err := filepath.Rel(dir, config)
			framework.Must(t, err)
			kustomization := fmt.Sprintf("namespace: %s\nresources: [%s/%s]\ntransformers: [%[2]s/namespace]\n", env.Namespace(t), config, of)
			framework.Must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600))

			manifests, err := env.Kubectl(t, "kustomize", dir)
			framework.Must(t, err)
			for line := range strings.SplitSeq(manifests, "\n") {
				if strings.Contains(line, systemNamespace) {
					t.Errorf("in another namespace it has %q", line)
				}
			}
			output, err := env.Kubectl(t, "apply", "--server-side", "--dry-run=server", "--kustomize", dir)
			if err != nil {
				t.Errorf("%v\n%s", err, output)
			}
		})
	}
}

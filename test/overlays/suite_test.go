// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build overlays

package overlays_test

import (
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	configDir       = "../../config"
	systemNamespace = "apikey-system"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// apply applies a kustomization. A warning or a conflict fails the test.
func apply(t *testing.T, env *testenv.Env, kustomization string) {
	t.Helper()
	output, err := env.Kubectl(t, "apply", "--server-side", "--kustomize", kustomization)
	framework.Must(t, err)
	for line := range strings.Lines(output) {
		if !strings.HasSuffix(line, " serverside-applied\n") {
			t.Errorf("kubectl apply printed: %s", line)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/metrics"
)

// Built is a running process of the program that `make build` builds, or of the program at another path. Tests that measure use it, because
// it has no race detector.
type Built struct {
	*process.Process

	t       testing.TB
	metrics string // URL
}

// StartBuilt starts a process with the access of a kubeconfig, and returns when it is ready. The command has the arguments, and may have
// another path, environment variables and a timeout. The process is killed when the test ends. A failed test logs how it ended.
func StartBuilt(t testing.TB, kubeconfig string, command process.Command) *Built {
	t.Helper()
	healthAddress, metricsAddress := binaries.FreeAddress(t), binaries.FreeAddress(t)
	if command.Path == "" {
		command.Path = binaries.Path(t, "apikey-operator")
	}
	command.Args = slices.Concat(command.Args, []string{
		"--health-probe-bind-address=" + healthAddress, "--metrics-bind-address=" + metricsAddress,
	})
	command.Env = slices.Concat(command.Env, []string{"KUBECONFIG=" + kubeconfig})
	command.Log = filepath.Join(t.TempDir(), "log")
	command.Ready = process.HTTPReady("http://" + healthAddress + "/readyz")
	return &Built{Process: binaries.Start(t, command), t: t, metrics: "http://" + metricsAddress + "/metrics"}
}

// Metric returns the sum of a counter or a gauge over its labels. It ends the test if the process does not have the metric.
func (b *Built) Metric(name string) float64 {
	b.t.Helper()
	families := metrics.Read(b.t, http.DefaultClient, b.metrics)
	if families[name] == nil {
		b.t.Fatalf("the process has no metric %s", name)
	}
	return families.Sum(name, nil)
}

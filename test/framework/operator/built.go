// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bufio"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
)

// Built is a running process of the program that `make build` builds. Tests that measure use it, because it has no race detector.
type Built struct {
	*process.Process

	t       testing.TB
	metrics string // URL
}

// StartBuilt starts a process with the access of a kubeconfig, and returns when it is ready. The command has the arguments, and may have
// environment variables and a timeout. The process is killed when the test ends. A failed test logs how it ended.
func StartBuilt(t testing.TB, kubeconfig string, command process.Command) *Built {
	t.Helper()
	health, metrics := binaries.FreeAddress(t), binaries.FreeAddress(t)
	command.Path = binaries.Path(t, "apikey-operator")
	command.Args = slices.Concat(command.Args, []string{"--health-probe-bind-address=" + health, "--metrics-bind-address=" + metrics})
	command.Env = slices.Concat(command.Env, []string{"KUBECONFIG=" + kubeconfig})
	command.Log = filepath.Join(t.TempDir(), "log")
	command.Ready = process.HTTPReady("http://" + health + "/readyz")
	return &Built{Process: binaries.Start(t, command), t: t, metrics: "http://" + metrics + "/metrics"}
}

// Metric returns the sum of a metric over its labels. It ends the test if the process does not have the metric.
func (b *Built) Metric(name string) (sum float64) {
	b.t.Helper()
	response, err := http.Get(b.metrics)
	framework.Must(b.t, err)
	defer func() { _ = response.Body.Close() }()
	isFound := false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if found, _, _ := strings.Cut(series, "{"); found == name {
			number, err := strconv.ParseFloat(value, 64)
			framework.Must(b.t, err)
			sum += number
			isFound = true
		}
	}
	framework.Must(b.t, lines.Err())
	if !isFound {
		b.t.Fatalf("the process has no metric %s", name)
	}
	return sum
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build load

package load_test

import (
	"bufio"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// daemon is a running process of the program that `make build` builds.
type daemon struct {
	testing.TB
	metrics string // URL
}

// start starts a process, and returns when it is ready.
func start(t testing.TB, env *testenv.Env, args ...string) *daemon {
	t.Helper()
	health, metrics := binaries.FreeAddress(t), binaries.FreeAddress(t)
	binaries.Start(t, process.Command{
		Path:  binaries.Path(t, "apikey-operator"),
		Args:  append(args, "--health-probe-bind-address="+health, "--metrics-bind-address="+metrics),
		Env:   []string{"KUBECONFIG=" + env.ControlPlane.Kubeconfig()},
		Log:   filepath.Join(t.TempDir(), "log"),
		Ready: process.HTTPReady("http://" + health + "/readyz"),
	})
	return &daemon{TB: t, metrics: "http://" + metrics + "/metrics"}
}

func startController(t testing.TB, env *testenv.Env) *daemon {
	t.Helper()
	return start(t, env, "controller", "--webhook=false", "--leader-elect=false")
}

// metric returns the value of a metric without labels.
func (d *daemon) metric(name string) float64 {
	d.Helper()
	response, err := http.Get(d.metrics)
	framework.Must(d, err)
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), name+" "); found {
			value, err := strconv.ParseFloat(text, 64)
			framework.Must(d, err)
			return value
		}
	}
	d.Fatalf("the process has no metric %s: %v", name, lines.Err())
	return 0
}

// quantile returns a quantile of times that are sorted.
func quantile(times []time.Duration, q float64) time.Duration {
	return times[int(q*float64(len(times)-1))].Round(time.Millisecond)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
)

const megabyte = 1e6

// daemon is a running process of the program that `make build` builds.
type daemon struct {
	*process.Process
	t       *testing.T
	metrics string
}

// startAuthenticator starts an authenticator, and returns when it is ready, with its address.
func (p *population) startAuthenticator() (authenticator *daemon, address string) {
	p.t.Helper()
	address = binaries.FreeAddress(p.t)
	return p.start("GOGC=200", "authenticator", "--listen-address="+address, "--grpc-listen-address=0", "--plaintext"), address
}

// startController starts a controller, and returns when it is ready.
func (p *population) startController() *daemon {
	p.t.Helper()
	return p.start("GOGC=25", "controller", "--webhook=false", "--leader-elect=false")
}

// start starts a process with the GOGC of its Deployment in config.
func (p *population) start(gogc string, args ...string) *daemon {
	p.t.Helper()
	health, metrics := binaries.FreeAddress(p.t), binaries.FreeAddress(p.t)
	started, err := process.Start(p.t.Context(), process.Command{
		Path:  inRepository(p.t, "bin", "apikey-operator"),
		Args:  append(args, "--health-probe-bind-address="+health, "--metrics-bind-address="+metrics),
		Env:   []string{"KUBECONFIG=" + p.ControlPlane.Kubeconfig(), gogc},
		Log:   filepath.Join(p.t.TempDir(), "log"),
		Ready: process.HTTPReady("http://" + health + "/readyz"),

		ReadyTimeout: 5 * time.Minute, // a busy machine needs longer than a minute to list all keys
	})
	framework.Must(p.t, err)
	p.t.Cleanup(started.Kill)
	return &daemon{Process: started, t: p.t, metrics: "http://" + metrics + "/metrics"}
}

// resident is the resident memory of a process, in MB.
type resident struct{ now, peak float64 }

func (d *daemon) resident() resident {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	framework.Must(d.t, err)
	kilobytes := func(field string) float64 {
		_, rest, found := strings.Cut(string(status), "\n"+field+":")
		value, err := strconv.ParseFloat(strings.Fields(rest + " ")[0], 64)
		if !found || err != nil {
			d.t.Fatalf("%s is not in the status of the process:\n%s", field, status)
		}
		return value * 1024 / megabyte
	}
	return resident{now: kilobytes("VmRSS"), peak: kilobytes("VmHWM")}
}

// metric returns the sum of a metric over its labels.
func (d *daemon) metric(name string) float64 {
	d.t.Helper()
	response, err := http.Get(d.metrics)
	framework.Must(d.t, err)
	defer response.Body.Close()
	sum := 0.0
	lines := bufio.NewScanner(io.Reader(response.Body))
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if found, _, _ := strings.Cut(series, "{"); found == name {
			number, err := strconv.ParseFloat(value, 64)
			framework.Must(d.t, err)
			sum += number
		}
	}
	framework.Must(d.t, lines.Err())
	return sum
}

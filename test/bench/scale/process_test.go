// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
)

const megabyte = 1e6

// daemon is a running process of the operator.
type daemon struct {
	*operator.Built
	t *testing.T
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
	return &daemon{t: p.t, Built: operator.StartBuilt(p.t, p.Kubeconfig(p.t, p.identity), process.Command{
		Path:         binaries.Path(p.t, "bench", "apikey-operator"),
		Args:         args,
		Env:          []string{gogc},
		ReadyTimeout: 5 * time.Minute, // a busy machine needs longer than a minute to list all keys
	})}
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

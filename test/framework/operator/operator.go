// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package operator runs the program of this repository as processes of a test.
package operator

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testcache"
)

// AnyPort is an address for a server that logs where it listens.
const AnyPort = "127.0.0.1:0"

const pollInterval = 20 * time.Millisecond

// build builds the program with the race detector, whose findings fail the test that ran it, and returns its path. What was built stays:
// the next run has it at once when nothing changed.
var build = sync.OnceValues(func() (path string, err error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return "", err
	}
	path = filepath.Join(root, "bin", "race", "apikey-operator")
	command := exec.Command("go", "build", "-race", "-o", path, "./cmd/apikey-operator")
	command.Dir = root
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return path, testcache.Note(testcache.Program...)
})

// Program returns the path of the program.
func Program(t testing.TB) string {
	t.Helper()
	path, err := build()
	framework.Must(t, err)
	return path
}

// Process is a running process of the program.
type Process struct {
	*process.Process
	// Subcommand is what the process was told to be: controller, for example.
	Subcommand string

	t testing.TB
}

// Start runs the program with these arguments, as whom config says. It is killed when the test ends, and fails the test if it panicked
// or had a data race.
func Start(t testing.TB, config *rest.Config, args ...string) *Process {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	framework.Must(t, controlplane.WriteKubeconfig(kubeconfig, config, metav1.NamespaceDefault))
	p := &Process{t: t, Subcommand: args[0]}
	var err error
	p.Process, err = process.Start(t.Context(), process.Command{
		Path: Program(t),
		Args: args,
		Env:  []string{"KUBECONFIG=" + kubeconfig},
		Log:  filepath.Join(dir, "log"),
	})
	framework.Must(t, err)
	t.Cleanup(func() {
		p.Kill()
		p.examineLog()
	})
	return p
}

// StartController runs a controller without webhook and election, unless the arguments say otherwise.
func StartController(t testing.TB, config *rest.Config, args ...string) *Process {
	t.Helper()
	return Start(t, config, append([]string{
		"controller", "--webhook=false", "--leader-elect=false", "--health-probe-bind-address=" + AnyPort,
	}, args...)...)
}

// StartAuthenticator runs an authenticator. The arguments say whether it serves TLS or plain HTTP.
func StartAuthenticator(t testing.TB, config *rest.Config, args ...string) *Process {
	t.Helper()
	return Start(t, config, append([]string{
		"authenticator", "--listen-address=" + AnyPort, "--grpc-listen-address=" + AnyPort,
		"--health-probe-bind-address=" + AnyPort, "--metrics-bind-address=" + AnyPort,
	}, args...)...)
}

// Printed returns all that the process has printed.
func (p *Process) Printed() string {
	p.t.Helper()
	content, err := os.ReadFile(p.Log())
	framework.Must(p.t, err)
	return string(content)
}

// Address waits until the process serves and returns where: "metrics" and "health" of all, "authenticator" and "grpc" of the authenticator,
// "console" of the console, "webhook" of the controller.
func (p *Process) Address(server string) string {
	p.t.Helper()
	var address string
	p.eventually("it serves "+server, func() bool {
		for line := range strings.Lines(p.Printed()) {
			var entry struct{ Server, Addr string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Addr != "" && entry.Server == server {
				address = entry.Addr
				return true
			}
		}
		return false
	})
	return address
}

// Exit waits for the end of the process and says how it ended: "exit status 0" or "signal: killed".
func (p *Process) Exit() string {
	p.t.Helper()
	select {
	case <-p.Ended():
	case <-time.After(framework.Timeout):
		p.t.Fatalf("waited %s in vain until the %s ends", framework.Timeout, p.Subcommand)
	}
	how, _, _ := strings.Cut(p.Err().Error(), "\n")
	return how
}

func (p *Process) eventually(what string, condition func() bool) {
	p.t.Helper()
	deadline := time.After(framework.Timeout)
	for !condition() {
		select {
		case <-p.Ended():
			p.t.Fatalf("the %s ended: %v", p.Subcommand, p.Err())
		case <-deadline:
			p.t.Fatalf("waited %s in vain until the %s says that %s", framework.Timeout, p.Subcommand, what)
		case <-time.After(pollInterval):
		}
	}
}

func (p *Process) examineLog() {
	printed := p.Printed()
	for _, fault := range []string{"DATA RACE", "panic"} {
		if strings.Contains(printed, fault) {
			p.t.Errorf("the log of the %s has a %s", p.Subcommand, fault)
		}
	}
	if p.t.Failed() {
		p.t.Logf("the log of the %s:\n%s", p.Subcommand, printed)
	}
}

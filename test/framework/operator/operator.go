// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package operator runs apikey-operator as child processes of a test.
package operator

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testcache"
)

// AnyPort is the listen address of a server on a free port. [Process.Address] returns the port.
const AnyPort = "127.0.0.1:0"

// build compiles the program and returns its path. It has the race detector if the test has it. The file stays in bin, so that the next run
// need not compile.
var build = sync.OnceValues(func() (path string, err error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return "", err
	}
	directory, flags := "test", []string{"-ldflags=-w"} // -w: debuggers do not read it
	if raceDetector() {
		directory, flags = "race", append(flags, "-race")
	}
	path = filepath.Join(root, "bin", directory, "apikey-operator")
	temporary := filepath.Join(root, "bin", ".tmp") // the dot hides it from ./...
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return "", err
	}
	command := exec.Command("go", slices.Concat([]string{"build", "-o", path}, flags, []string{"./cmd/apikey-operator"})...)
	command.Dir = root
	command.Env = append(os.Environ(), "GOTMPDIR="+temporary) // in one file system, Go replaces the file at once: others may run it
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return path, testcache.DependOn(testcache.OperatorSources...)
})

// raceDetector reports whether this test was compiled with the race detector.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// Program returns the path of the program.
func Program(t testing.TB) string {
	t.Helper()
	path, err := build()
	framework.Must(t, err)
	return path
}

// Process is a running process of the operator.
type Process struct {
	*process.Process
	// Subcommand of the process, such as "controller".
	Subcommand string

	t testing.TB
}

// Start runs the program with these arguments and the credentials of config. The process is killed when the test ends. A panic or a data
// race in its log fails the test.
func Start(t testing.TB, config *rest.Config, args ...string) *Process {
	t.Helper()
	return StartProgram(t, Program(t), config, args...)
}

// StartProgram is [Start] for another build of the program.
func StartProgram(t testing.TB, program string, config *rest.Config, args ...string) *Process {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	framework.Must(t, controlplane.WriteKubeconfig(kubeconfig, config, metav1.NamespaceDefault))
	p := &Process{t: t, Subcommand: args[0]}
	var err error
	p.Process, err = process.Start(t.Context(), process.Command{
		Path: program,
		Args: args,
		Env:  []string{"KUBECONFIG=" + kubeconfig},
		Log:  filepath.Join(dir, "log"),
	})
	framework.Must(t, err)
	t.Cleanup(func() {
		p.Kill()
		p.checkOutput()
	})
	return p
}

// StartController runs a controller without webhook and leader election. The arguments may override that.
func StartController(t testing.TB, config *rest.Config, args ...string) *Process {
	t.Helper()
	return Start(t, config, append([]string{
		"controller", "--webhook=false", "--leader-elect=false", "--health-probe-bind-address=" + AnyPort,
	}, args...)...)
}

// StartAuthenticator runs an authenticator. The arguments choose between TLS and plain HTTP.
func StartAuthenticator(t testing.TB, config *rest.Config, args ...string) *Process {
	t.Helper()
	return Start(t, config, append([]string{
		"authenticator", "--listen-address=" + AnyPort, "--grpc-listen-address=" + AnyPort,
		"--health-probe-bind-address=" + AnyPort, "--metrics-bind-address=" + AnyPort,
	}, args...)...)
}

// StartConsole runs a console of a namespace over plain HTTP. By default it has no bootstrap key.
func StartConsole(t testing.TB, config *rest.Config, namespace string, args ...string) *Process {
	t.Helper()
	return Start(t, config, append([]string{
		"console", "--namespace=" + namespace, "--plaintext", "--api-key-file=", "--listen-address=" + AnyPort,
		"--health-probe-bind-address=" + AnyPort, "--metrics-bind-address=" + AnyPort,
	}, args...)...)
}

// Output returns what the process has written to its standard output and error.
func (p *Process) Output() string {
	p.t.Helper()
	content, err := os.ReadFile(p.Log())
	framework.Must(p.t, err)
	return string(content)
}

// Address waits until the process logs the address of a server, and returns it. All processes have the servers "metrics" and "health";
// the authenticator also has "authenticator" and "grpc", the console "console", and the controller "webhook".
func (p *Process) Address(server string) (address string) {
	p.t.Helper()
	framework.Eventually(p.t, "the "+p.Subcommand+" serves "+server, func() bool {
		for line := range strings.Lines(p.Output()) {
			var entry struct{ Server, Addr string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Addr != "" && entry.Server == server {
				address = entry.Addr
				return true
			}
		}
		select {
		case <-p.Ended():
			p.t.Fatalf("the %s ended before it served %s: %v", p.Subcommand, server, p.Err())
		default:
		}
		return false
	})
	return address
}

// Exit waits until the process ends, and returns how it ended, such as "exit status 0" or "signal: killed".
func (p *Process) Exit() string {
	p.t.Helper()
	framework.Receive(p.t, framework.Timeout, "the "+p.Subcommand+" ends", p.Ended())
	how, _, _ := strings.Cut(p.Err().Error(), "\n")
	return how
}

// checkOutput fails the test if the output reports a panic or a data race. A failed test logs the output.
func (p *Process) checkOutput() {
	output := p.Output()
	for _, fault := range []string{"DATA RACE", "panic"} {
		if strings.Contains(output, fault) {
			p.t.Errorf("the log of the %s reports a %s", p.Subcommand, fault)
		}
	}
	if p.t.Failed() {
		p.t.Logf("the log of the %s:\n%s", p.Subcommand, output)
	}
}

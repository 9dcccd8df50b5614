// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	certutil "k8s.io/client-go/util/cert"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/proxies"
)

// server is a running test/bench/server, or an Authorino.
type server struct {
	*process.Process
	t                                *testing.T
	address, grpcAddress, operations string
	scheme                           string
	dir                              string
	// Files of keys for checks, in the form that test/bench/testdata/check.lua reads.
	known, unknown string
}

// population is the number of keys of a server, and of the namespaces that they are spread over.
type population struct{ keys, namespaces int }

var (
	manyKeys = population{keys: 100_000, namespaces: 100}
	fewKeys  = population{keys: 1_000, namespaces: 10}
)

// newServer starts a server. With a directory for its certificate, cert.pem, it serves with TLS.
func newServer(t *testing.T, certificateDir string, p population) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, dir: dir, address: binaries.FreeAddress(t), grpcAddress: binaries.FreeAddress(t), operations: binaries.FreeAddress(t), scheme: "http"}
	args := []string{fmt.Sprint("-keys=", p.keys), fmt.Sprint("-namespaces=", p.namespaces), "-tokens-file=" + filepath.Join(dir, "all"),
		"-listen-address=" + s.address, "-grpc-listen-address=" + s.grpcAddress, "-operations-address=" + s.operations}
	if certificateDir != "" {
		certificate, key, err := certutil.GenerateSelfSignedCertKey(proxies.AuthenticatorName, nil, nil)
		framework.Must(t, err)
		certFile, keyFile := filepath.Join(certificateDir, "cert.pem"), filepath.Join(certificateDir, "key.pem")
		framework.Must(t, os.WriteFile(certFile, certificate, 0o600))
		framework.Must(t, os.WriteFile(keyFile, key, 0o600))
		args = append(args, "-tls-cert-file="+certFile, "-tls-private-key-file="+keyFile)
		s.scheme = "https"
	}
	s.Process = binaries.Start(t, process.Command{
		Path: binaries.Path(t, "bench", "server"), Args: args, Env: []string{"GOGC=200"}, // as in config/authenticator
		Log: filepath.Join(dir, "log"), Ready: process.HTTPReady("http://" + s.operations + "/healthz"),
	})
	content, err := os.ReadFile(filepath.Join(dir, "all"))
	framework.Must(t, err)
	lines := strings.SplitAfter(string(content), "\n")
	known := strings.Join(lines[:min(len(lines), 10_000)], "")
	s.known = s.write("known", known)
	s.unknown = s.write("unknown", strings.ReplaceAll(known, " sq_", " qs_"))
	return s
}

// tokens returns the tokens of all keys.
func (s *server) tokens() []string {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(s.dir, "all"))
	framework.Must(s.t, err)
	var tokens []string
	for line := range strings.Lines(string(content)) {
		tokens = append(tokens, strings.Fields(line)[1])
	}
	return tokens
}

func (s *server) write(name, content string) string {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	framework.Must(s.t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

// operate sends a request to the operations address.
func (s *server) operate(path string) string {
	s.t.Helper()
	content, err := s.get(path)
	framework.Must(s.t, err)
	return strings.TrimSpace(string(content))
}

// get returns the response of the operations address. Any goroutine may call it.
func (s *server) get(path string) ([]byte, error) {
	response, err := http.Get("http://" + s.operations + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the response to %s is %s: %s", path, response.Status, content)
	}
	return content, err
}

// stopwatch returns a function that returns the processor time that each process has used since, in µs.
func stopwatch(t *testing.T, processes ...*process.Process) func() []float64 {
	t.Helper()
	read := func() []float64 {
		used := make([]float64, len(processes))
		for i, p := range processes {
			used[i] = float64(readClock(t, int32(^p.PID()<<3|2))) / 1000 // as clock_getcpuclockid(3) does
		}
		return used
	}
	before := read()
	return func() []float64 {
		used := read()
		for i := range used {
			used[i] -= before[i]
		}
		return used
	}
}

// readClock returns the time of a clock, in ns.
func readClock(t *testing.T, clock int32) int64 {
	t.Helper()
	var now unix.Timespec
	framework.Must(t, unix.ClockGettime(clock, &now))
	return now.Nano()
}

// perRequest divides the processor times of processes by a number of requests.
func perRequest(used []float64, requests float64) []float64 {
	divided := make([]float64, len(used))
	for i := range used {
		divided[i] = used[i] / requests
	}
	return divided
}

// run runs a program of bin/debian and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), binaries.Path(t, "debian", "usr", "bin", name), args...)
	command.Env = append(os.Environ(), binaries.DebianLibraryPath(t))
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
	return string(output)
}

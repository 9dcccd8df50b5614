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
	"slices"
	"strconv"
	"strings"
	"testing"

	certutil "k8s.io/client-go/util/cert"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
)

// server is a running test/bench/server with 100 000 keys.
type server struct {
	t                                *testing.T
	address, grpcAddress, operations string
	scheme                           string
	dir                              string
	// Files of keys for checks, in the form that test/bench/testdata/check.lua reads.
	known, knownOfFirstNamespace, unknown string
}

// newServer starts a server. With a directory for its certificate, cert.pem, it serves with TLS.
func newServer(t *testing.T, certificateDir string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, dir: dir, address: binaries.FreeAddress(t), grpcAddress: binaries.FreeAddress(t), operations: binaries.FreeAddress(t), scheme: "http"}
	args := []string{"-keys=100000", "-tokens-file=" + filepath.Join(dir, "all"),
		"-listen-address=" + s.address, "-grpc-listen-address=" + s.grpcAddress, "-operations-address=" + s.operations}
	if certificateDir != "" {
		certificate, key, err := certutil.GenerateSelfSignedCertKey("apikey-authenticator.apikey-system.svc", nil, nil)
		framework.Must(t, err)
		certFile, keyFile := filepath.Join(certificateDir, "cert.pem"), filepath.Join(certificateDir, "key.pem")
		framework.Must(t, os.WriteFile(certFile, certificate, 0o600))
		framework.Must(t, os.WriteFile(keyFile, key, 0o600))
		args = append(args, "-tls-cert-file="+certFile, "-tls-private-key-file="+keyFile)
		s.scheme = "https"
	}
	binaries.Start(t, process.Command{
		Path: binaries.Path(t, "bench", "server"), Args: args, Env: []string{"GOGC=200"}, // as in config/authenticator
		Log: filepath.Join(dir, "log"), Ready: process.HTTPReady("http://" + s.operations + "/healthz"),
	})
	content, err := os.ReadFile(filepath.Join(dir, "all"))
	framework.Must(t, err)
	lines := strings.SplitAfter(string(content), "\n")[:10_000]
	known, ofFirst := strings.Join(lines, ""), slices.DeleteFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "namespace-0 ") })
	s.known = s.write("known", known)
	s.knownOfFirstNamespace = s.write("known-of-first-namespace", strings.Join(ofFirst, ""))
	s.unknown = s.write("unknown", strings.ReplaceAll(known, " sq_", " qs_"))
	return s
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

// cpu returns the processor time that the server has used, in µs.
func (s *server) cpu() float64 {
	s.t.Helper()
	nanoseconds, err := strconv.ParseFloat(s.operate("/cpu"), 64)
	framework.Must(s.t, err)
	return nanoseconds / 1000
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

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certutil "k8s.io/client-go/util/cert"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// program is the program under test as a separate process.
type program struct {
	*process.Process
	t   *testing.T
	log string
}

func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	p, err := process.Start(t.Context(), process.Command{Path: path, Args: args, Env: []string{beTheProgram}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return &program{Process: p, t: t, log: log}
}

// logLine has the attributes of a log line that tests assert.
type logLine struct{ Level, Msg, Server, Addr, Err string }

func (p *program) lines() []logLine {
	p.t.Helper()
	content, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	var lines []logLine
	for text := range bytes.Lines(content) {
		var line logLine
		if !bytes.HasSuffix(text, []byte("\n")) {
			break // the line is incomplete
		}
		if err := json.Unmarshal(text, &line); err != nil {
			p.t.Fatalf("the log has a line that is not JSON: %s", text)
		}
		lines = append(lines, line)
	}
	return lines
}

// address returns the address of a server of the program, which it reads from the log.
func (p *program) address(server string) string {
	p.t.Helper()
	var address string
	p.eventually("the "+server+" server listens", func() bool {
		for _, line := range p.lines() {
			if line.Msg == "Serving" && line.Server == server {
				address = line.Addr
			}
		}
		return address != ""
	})
	return address
}

// eventually waits for a condition. On a timeout it fails with the end of the program's log.
func (p *program) eventually(description string, condition func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(framework.Timeout); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Kill()
			p.t.Fatalf("timed out after %s waiting until %s: %v", framework.Timeout, description, p.Err())
		}
	}
}

// assertEnds waits for the end of the program, and asserts its exit status, for example "exit status 0".
func (p *program) assertEnds(want string) {
	p.t.Helper()
	select {
	case <-p.Ended():
		if got, _, _ := strings.Cut(p.Err().Error(), "\n"); got != want {
			p.t.Errorf("the program ended with %q, want %q: %v", got, want, p.Err())
		}
	case <-time.After(framework.Timeout):
		p.t.Errorf("the program did not end")
	}
}

// get sends a request over a new connection, and returns 0 if that fails.
func get(t *testing.T, transport *http.Transport, url string, headers ...string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	transport = transport.Clone()
	transport.DisableKeepAlives = true
	response, err := (&http.Client{Transport: transport, Timeout: framework.Timeout}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// certificate is the files of a serving certificate.
type certificate struct{ certFile, keyFile string }

func newCertificate(t *testing.T) certificate {
	t.Helper()
	directory := t.TempDir()
	return certificate{filepath.Join(directory, "tls.crt"), filepath.Join(directory, "tls.key")}
}

// renew writes a new certificate for loopback to the files, and returns a transport that trusts only it.
func (c certificate) renew(t *testing.T) *http.Transport {
	t.Helper()
	cert, key, err := certutil.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{c.certFile: cert, c.keyFile: key} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
}

// issueKey creates an APIKey with the status of an issued one, and returns its token.
func issueKey(t *testing.T, env *testenv.Env, namespace, name string) string {
	t.Helper()
	plaintext := token.New()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: name, ReadAccess: true},
	}
	if err := env.Client.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(plaintext), NotBefore: new(metav1.Now())}}
	if err := env.Client.Status().Update(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return plaintext
}

func address(port int) string {
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
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
			if line.Msg == "serving" && line.Server == server {
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

func TestAuthenticator_ServesOverTLSAndDrains(t *testing.T) {
	t.Parallel()
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	plaintext := issueKey(t, env, namespace, "frontend")
	serving := newCertificate(t)
	first := serving.renew(t)

	p := startProgram(t, "authenticator",
		"--kubeconfig="+env.Kubeconfig(t, env.Config),
		"--listen-address=127.0.0.1:0", "--grpc-listen-address=0",
		"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0",
		"--tls-cert-file="+serving.certFile, "--tls-private-key-file="+serving.keyFile,
		"--shutdown-delay=2s", "--log-level=debug")
	plain := &http.Transport{}
	health, metrics := "http://"+p.address("health"), "http://"+p.address("metrics")
	url := "https://" + p.address("authenticator") + "/auth/forward/" + namespace
	p.eventually("the process is ready", func() bool { status, body := get(t, plain, health+"/readyz"); return status == 200 && body == "ok\n" })

	if status, body := get(t, first, url, "X-Forwarded-Method: GET", "X-API-Key: "+plaintext); status != 200 {
		t.Errorf("the response to a valid key is %d %s", status, body)
	}
	if status, body := get(t, first, url, "X-Forwarded-Method: GET", "X-API-Key: "+token.New()); status != 401 {
		t.Errorf("the response to an unknown key is %d %s", status, body)
	}
	counted := `apikey_authentications_total{protocol="forward",verdict="granted"} 1` + "\n"
	if _, body := get(t, plain, metrics+"/metrics"); !strings.Contains(body, counted) || strings.Contains(body, "frontend") {
		t.Errorf("the metrics are\n%s", body)
	}

	second := serving.renew(t)
	p.eventually("the new certificate is served", func() bool {
		status, _ := get(t, second, url, "X-Forwarded-Method: GET", "X-API-Key: "+plaintext)
		return status == 200
	})

	p.Signal(syscall.SIGTERM)
	p.eventually("the process is not ready", func() bool { status, _ := get(t, plain, health+"/readyz"); return status == 503 })
	if status, body := get(t, second, url, "X-Forwarded-Method: GET", "X-API-Key: "+plaintext); status != 200 {
		t.Errorf("during the drain, the response to a valid key is %d %s", status, body)
	}
	p.assertEnds("exit status 0")

	content, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte(plaintext)) || !bytes.Contains(content, []byte(`"reason":"KeyUnknown"`)) {
		t.Errorf("the log must have the denial and no token, but is\n%s", content)
	}
}

func TestInvariant4_AuthenticatorWithoutTheAPIResponds503(t *testing.T) {
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, &rest.Config{Host: "http://" + closed.Addr().String()}, "default"); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, "authenticator", "--kubeconfig="+kubeconfig, "--plaintext", "--shutdown-delay=1h",
		"--listen-address=127.0.0.1:0", "--grpc-listen-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")
	plain := &http.Transport{}
	health, url := "http://"+p.address("health"), "http://"+p.address("authenticator")

	if status, body := get(t, plain, health+"/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("the response of /healthz is %d %s", status, body)
	}
	if status, body := get(t, plain, health+"/readyz"); status != 503 || !strings.HasPrefix(body, "the APIKeys have not been listed yet: ") {
		t.Errorf("the response of /readyz is %d %s", status, body)
	}
	for _, path := range []string{"/auth/envoy/shop/", "/auth/nginx/shop", "/auth/forward/shop"} {
		headers := []string{"X-API-Key: " + token.New()}
		switch path {
		case "/auth/nginx/shop":
			headers = append(headers, "X-Original-Method: GET")
		case "/auth/forward/shop":
			headers = append(headers, "X-Forwarded-Method: GET")
		}
		if status, body := get(t, plain, url+path, headers...); status != 503 {
			t.Errorf("the response of %s is %d %s", path, status, body)
		}
	}
	gateway := p.dialGRPC(nil)
	assertCheck(t, gateway, map[string]string{"namespace": "shop"}, token.New(), 503)
	assertCheck(t, gateway, nil, token.New(), 500) // no namespace
	assertGRPCHealth(t, gateway, healthv1.HealthCheckResponse_NOT_SERVING)

	p.Signal(syscall.SIGINT)
	p.eventually("the process drains", func() bool { _, body := get(t, plain, health+"/readyz"); return body == "shutting down\n" })
	p.Signal(syscall.SIGINT) // ends the process at once
	p.assertEnds("exit status 1")
}

func TestController_IssuesKeysAndReleasesItsLease(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	port, certDir := env.Webhook(t, "../../config/webhook/validating.yaml")
	healthPort, err := controlplane.FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	webhook, health := address(port), address(healthPort)
	p := startProgram(t, "controller", "--kubeconfig="+env.Kubeconfig(t, env.Config), "--system-namespace="+namespace,
		"--health-probe-bind-address="+health, "--webhook-listen-address="+webhook, "--webhook-cert-dir="+certDir)
	plain := &http.Transport{}
	p.eventually("the process is ready", func() bool { status, _ := get(t, plain, "http://"+health+"/readyz"); return status == 200 })

	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "frontend"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true},
	}
	if err := env.Client.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	p.eventually("the key is issued", func() bool {
		if err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key); err != nil {
			t.Fatal(err)
		}
		return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)
	})
	secret := &corev1.Secret{}
	if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "frontend-token"}, secret); err != nil {
		t.Fatal(err)
	}
	second := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "second"}, Spec: key.Spec}
	p.eventually("the webhook rejects a second key of the app name", func() bool { // failurePolicy Ignore admits it after a timeout
		err := env.Client.Create(t.Context(), second.DeepCopy(), client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), `"frontend"`)
	})

	p.Signal(syscall.SIGTERM)
	p.assertEnds("exit status 0")
	lease := &coordinationv1.Lease{}
	if err := env.Client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: leaderElectionID}, lease); err != nil {
		t.Fatal(err)
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("the lease is still held by %q", *holder)
	}
	content, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	if plaintext := secret.Data["token"]; len(plaintext) != token.Length || bytes.Contains(content, plaintext) {
		t.Errorf("the token of %d bytes is missing or in the log", len(plaintext))
	}
}

func TestRun_LogsFailuresAndExitsWith1(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, &rest.Config{Host: "http://127.0.0.1:1"}, "default"); err != nil {
		t.Fatal(err)
	}
	inUse, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no kubeconfig": {
			args: []string{"authenticator", "--plaintext", "--kubeconfig=" + missing},
			want: "find the Kubernetes API by --kubeconfig, KUBECONFIG or the ServiceAccount of the pod: stat " + missing + ": no such file or directory",
		},
		"no certificate": {
			args: []string{"authenticator", "--kubeconfig=" + kubeconfig, "--tls-cert-file=" + missing, "--tls-private-key-file=" + missing},
			want: "load the serving certificate: open " + missing + ": no such file or directory",
		},
		"an address in use": {
			args: []string{"authenticator", "--kubeconfig=" + kubeconfig, "--plaintext", "--listen-address=" + inUse.Addr().String()},
			want: "the authenticator server cannot listen on " + inUse.Addr().String() + ": listen tcp " + inUse.Addr().String() +
				": bind: address already in use",
		},
		"a directory for a key file": {
			args: []string{"console", "--kubeconfig=" + kubeconfig, "--plaintext", "--namespace=shop", "--api-key-file=" + dir},
			want: "the key file " + dir + " is a directory: remove it, or name a file with --api-key-file",
		},
		"a gRPC address in use": {
			args: []string{"authenticator", "--kubeconfig=" + kubeconfig, "--plaintext", "--listen-address=127.0.0.1:0",
				"--grpc-listen-address=" + inUse.Addr().String()},
			want: "the grpc server cannot listen on " + inUse.Addr().String() + ": listen tcp " + inUse.Addr().String() +
				": bind: address already in use",
		},
		"no webhook certificate": {
			args: []string{"controller", "--kubeconfig=" + kubeconfig, "--leader-elect=false", "--webhook-cert-dir=" + missing},
			want: "load the certificate of the admission webhook: open " + filepath.Join(missing, "tls.crt") + ": no such file or directory",
		},
		"no kubeconfig for the controller": {
			args: []string{"controller", "--webhook=false", "--leader-elect=false", "--kubeconfig=" + missing},
			want: "find the Kubernetes API by --kubeconfig, KUBECONFIG or the ServiceAccount of the pod: stat " + missing + ": no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProgram(t, c.args...)
			p.assertEnds("exit status 1")
			lines := p.lines()
			if last := lines[len(lines)-1]; last.Level != "ERROR" || last.Msg != "exiting" || last.Err != c.want {
				t.Errorf("the last line of the log is %+v, want the error %q", last, c.want)
			}
		})
	}
}

func address(port int) string {
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
}

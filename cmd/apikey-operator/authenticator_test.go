// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"go/types"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/pprof/profile"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// dialGRPC connects to the gRPC server of the program with the TLS configuration of an HTTP transport, or in plaintext if it is nil.
func (p *program) dialGRPC(trust *http.Transport) *grpc.ClientConn {
	p.t.Helper()
	transport := insecure.NewCredentials()
	if trust != nil {
		transport = credentials.NewTLS(trust.TLSClientConfig)
	}
	connection, err := grpc.NewClient("passthrough:///"+p.address("grpc"), grpc.WithTransportCredentials(transport))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// check sends a check of a GET as Envoy does, and returns the HTTP status for the client, which is 200 if the request is granted.
func check(
	t *testing.T, connection *grpc.ClientConn, extensions map[string]string, apiKey string, options ...grpc.CallOption,
) (status int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), framework.Timeout)
	defer cancel()
	response, err := authv3.NewAuthorizationClient(connection).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: extensions,
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodGet, Headers: map[string]string{"x-api-key": apiKey},
		}},
	}}, options...)
	if response.GetOkResponse() != nil {
		return http.StatusOK, err
	}
	return int(response.GetDeniedResponse().GetStatus().GetCode()), err
}

func assertCheck(t *testing.T, connection *grpc.ClientConn, extensions map[string]string, apiKey string, want int) {
	t.Helper()
	if got, err := check(t, connection, extensions, apiKey); err != nil || got != want {
		t.Errorf("the check returned %d, %v, want %d", got, err, want)
	}
}

func assertGRPCHealth(t *testing.T, connection *grpc.ClientConn, want healthv1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
		response, err := healthv1.NewHealthClient(connection).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil || response.GetStatus() != want {
			t.Errorf("the health of %q is %v, %v, want %v", service, response.GetStatus(), err, want)
		}
	}
}

func TestAuthenticator_ServesGRPCOverTLSAndDrains(t *testing.T) {
	t.Parallel()
	env := testenv.Shared(t)
	namespace, other := env.Namespace(t), env.Namespace(t)
	plaintext := issueKey(t, env, namespace, "frontend")
	serving := newCertificate(t)
	first := serving.renew(t)
	p := startProgram(t, "authenticator",
		"--kubeconfig="+env.Kubeconfig(t, env.Config), "--default-namespace="+namespace,
		"--listen-address=127.0.0.1:0", "--grpc-listen-address=127.0.0.1:0",
		"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0",
		"--tls-cert-file="+serving.certFile, "--tls-private-key-file="+serving.keyFile, "--shutdown-delay=2s")
	plain := &http.Transport{}
	open := p.dialGRPC(first)
	watch, err := healthv1.NewHealthClient(open).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	waitForHealth := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for {
			response, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if response.Status == want {
				return
			}
		}
	}

	waitForHealth(healthv1.HealthCheckResponse_SERVING)
	assertGRPCHealth(t, open, healthv1.HealthCheckResponse_SERVING)
	assertCheck(t, open, nil, plaintext, 200)
	assertCheck(t, open, map[string]string{"namespace": namespace}, plaintext, 200)
	assertCheck(t, open, map[string]string{"namespace": other}, plaintext, 401)
	assertCheck(t, open, nil, token.New(), 401)
	if _, err := check(t, p.dialGRPC(nil), nil, plaintext); status.Code(err) != codes.Unavailable {
		t.Errorf("without TLS, the check returned %v", err)
	}
	counted := `apikey_authentications_total{protocol="envoy-grpc",verdict="granted"} 2` + "\n"
	if _, body := get(t, plain, "http://"+p.address("metrics")+"/metrics"); !strings.Contains(body, counted) {
		t.Errorf("the metrics are\n%s", body)
	}

	second := serving.renew(t)
	p.eventually("the new certificate is served", func() bool {
		status, err := check(t, p.dialGRPC(second), nil, plaintext)
		return err == nil && status == 200
	})
	if _, err := check(t, p.dialGRPC(first), nil, plaintext); status.Code(err) != codes.Unavailable {
		t.Errorf("for a client that trusts the old certificate alone, the check returned %v", err)
	}
	assertCheck(t, open, nil, plaintext, 200)

	p.Signal(syscall.SIGTERM)
	waitForHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	assertGRPCHealth(t, open, healthv1.HealthCheckResponse_NOT_SERVING)
	assertCheck(t, open, nil, plaintext, 200)
	assertCheck(t, p.dialGRPC(second), nil, plaintext, 200)
	p.assertEnds("exit status 0")
	for _, line := range p.lines() {
		// The test causes these warnings by clients without TLS or with another certificate, and by a check for a namespace without keys.
		expected := line.Msg == "A TLS handshake failed" || strings.HasPrefix(line.Msg, "A gateway sent a check for a namespace without API keys")
		if line.Level == "WARN" && !expected {
			t.Errorf("the log has %+v", line)
		}
	}
}

func TestAuthenticator_GRPCCanBeDisabled(t *testing.T) {
	env := testenv.Shared(t)
	p := startProgram(t, "authenticator", "--kubeconfig="+env.Kubeconfig(t, env.Config), "--plaintext", "--grpc-listen-address=0",
		"--listen-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0", "--shutdown-delay=0")
	p.address("health")
	for _, line := range p.lines() {
		if line.Server == "grpc" {
			t.Errorf("a gRPC server listens at %s", line.Addr)
		}
	}
	p.Signal(syscall.SIGTERM)
	p.assertEnds("exit status 0")
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

// The compiler ignores what a profile records of functions that no longer have their name.
func TestProfile_NamesFunctionsOfThisProgram(t *testing.T) {
	content, err := os.ReadFile("authenticator.pgo")
	framework.Must(t, err)
	recorded, err := profile.ParseData(content)
	framework.Must(t, err)

	const module = "squirrel.dev/apikey-operator/"
	// A package, and a method of a type, or a function. Closures and inlined functions may follow.
	name := regexp.MustCompile(`^([^.]+)\.(?:\(?\*?(\w+)\)?\.)?(\w+)`)
	declared := map[string][]string{}
	var known, unknown []string
	for _, function := range recorded.Function {
		path, ok := strings.CutPrefix(function.Name, module)
		if !ok {
			continue
		}
		parts := name.FindStringSubmatch(path)
		if parts == nil {
			t.Fatalf("cannot parse the name %s", function.Name)
		}
		directory := filepath.Join("..", "..", parts[1])
		if declared[directory] == nil {
			declared[directory] = functionsIn(t, directory)
		}
		if slices.ContainsFunc([]string{parts[2] + "." + parts[3], parts[2], parts[3]}, func(function string) bool {
			return slices.Contains(declared[directory], function)
		}) {
			known = append(known, path)
		} else {
			unknown = append(unknown, path)
		}
	}
	if len(known) < 10 || len(unknown) > len(known)/10 {
		t.Errorf("the profile names %d functions of this module that exist, and too many that do not, such as after they were renamed: "+
			"run `make profile`: %s", len(known), strings.Join(unknown, ", "))
	}
}

// functionsIn returns the functions of the package in a directory, and its methods as "Type.Method".
func functionsIn(t *testing.T, directory string) []string {
	t.Helper()
	names := []string{"init"}
	files, err := filepath.Glob(filepath.Join(directory, "*.go"))
	framework.Must(t, err)
	for _, file := range files {
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, parser.SkipObjectResolution)
		framework.Must(t, err)
		for _, declaration := range parsed.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := function.Name.Name
			if function.Recv != nil {
				name = strings.TrimPrefix(types.ExprString(function.Recv.List[0].Type), "*") + "." + name
			}
			names = append(names, name)
		}
	}
	return names
}

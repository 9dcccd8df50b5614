// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// keeper asks by one protocol, over one connection.
type keeper struct {
	protocol string
	ask      func() (status int, reused bool)
}

// TestInvariant10_AFloodOfConnectionsLeavesGatewaysTheirs has a gateway of each protocol ask with a good key of each of two namespaces. As
// many connections as there may be are theirs then, so that one that was not recognised as a gateway's would be closed for the first
// connection of the flood.
func TestInvariant10_AFloodOfConnectionsLeavesGatewaysTheirs(t *testing.T) {
	t.Parallel()
	const flood = 20
	env := testenv.Shared(t)
	tokens := map[string]string{} // by namespace
	for range 2 {
		namespace := env.Namespace(t)
		tokens[namespace] = issueKey(t, env, namespace, "frontend")
	}
	serving := newCertificate(t)
	trust := serving.renew(t)
	const overHTTP, overGRPC = 2 * httpProtocols, 2
	p := startProgram(t, "authenticator",
		"--kubeconfig="+env.Kubeconfig(t, env.Config),
		"--listen-address=127.0.0.1:0", "--grpc-listen-address=127.0.0.1:0",
		"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0",
		"--tls-cert-file="+serving.certFile, "--tls-private-key-file="+serving.keyFile, "--shutdown-delay=0",
		"--max-connections="+strconv.Itoa(overHTTP+overGRPC))
	plain := &http.Transport{}
	p.eventually("ready", func() bool { status, _ := get(t, plain, "http://"+p.address("health")+"/readyz"); return status == 200 })

	var keepers []keeper
	for namespace, plaintext := range tokens {
		keepers = append(keepers, grpcKeeper(t, p, trust, namespace, plaintext))
		for protocol, request := range httpKeepers(plaintext, namespace) {
			keepers = append(keepers, httpKeeper(t, p, trust, protocol, request))
		}
	}
	for _, k := range keepers {
		if status, _ := k.ask(); status != 200 {
			t.Fatalf("%s: a good key is answered %d", k.protocol, status)
		}
	}
	for range flood {
		for _, server := range []string{"authenticator", "grpc"} {
			assertRefused(t, p.address(server))
		}
	}
	for _, k := range keepers {
		if status, reused := k.ask(); status != 200 || !reused {
			t.Errorf("%s: during the flood, a good key is answered %d, over the same connection: %v", k.protocol, status, reused)
		}
	}
	_, metrics := get(t, plain, "http://"+p.address("metrics")+"/metrics")
	for _, want := range []string{
		`apikey_connections{server="authenticator"} ` + strconv.Itoa(overHTTP),
		`apikey_connections{server="grpc"} ` + strconv.Itoa(overGRPC),
		`apikey_connections_evicted_total{server="authenticator"} 0`,
		`apikey_connections_evicted_total{server="grpc"} 0`,
		`apikey_connections_rejected_total{server="authenticator"} ` + strconv.Itoa(flood),
		`apikey_connections_rejected_total{server="grpc"} ` + strconv.Itoa(flood),
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

const httpProtocols = 5

// httpKeepers are requests with a good key, by protocol.
func httpKeepers(plaintext, namespace string) map[string]func(address string) (*http.Request, error) {
	const get, post = http.MethodGet, http.MethodPost
	request := func(method, path, body string, headers ...string) func(address string) (*http.Request, error) {
		return func(address string) (*http.Request, error) {
			made, err := http.NewRequest(method, "https://"+address+strings.Replace(path, "{namespace}", namespace, 1), strings.NewReader(body))
			for _, header := range headers {
				name, value, _ := strings.Cut(header, ": ")
				made.Header.Set(name, value)
			}
			return made, err
		}
	}
	key := "X-API-Key: " + plaintext
	return map[string]func(address string) (*http.Request, error){
		"envoy":   request(get, "/auth/envoy/{namespace}/orders", "", key),
		"nginx":   request(get, "/auth/nginx/{namespace}", "", key, "X-Original-Method: GET"),
		"forward": request(get, "/auth/forward/{namespace}", "", key, "X-Forwarded-Method: GET"),
		"tokenreview": request(post, "/auth/tokenreview/{namespace}",
			`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"`+plaintext+`"}}`, "Content-Type: application/json"),
		"introspect": request(post, "/auth/introspect/{namespace}", "token="+plaintext, key, "Content-Type: application/x-www-form-urlencoded"),
	}
}

func httpKeeper(
	t *testing.T, p *program, trust *http.Transport, protocol string, request func(address string) (*http.Request, error),
) keeper {
	t.Helper()
	transport := trust.Clone()
	t.Cleanup(transport.CloseIdleConnections)
	return keeper{protocol, func() (status int, reused bool) {
		t.Helper()
		made, err := request(p.address("authenticator"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), framework.Timeout)
		defer cancel()
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
		})
		response, err := transport.RoundTrip(made.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode, reused
	}}
}

func grpcKeeper(t *testing.T, p *program, trust *http.Transport, namespace, plaintext string) keeper {
	t.Helper()
	connection := p.dialGRPC(trust)
	return keeper{"envoy-grpc", func() (status int, reused bool) {
		t.Helper()
		before := connection.GetState()
		status, err := check(t, connection, map[string]string{"namespace": namespace}, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		return status, before == connection.GetState()
	}}
}

// assertRefused opens a connection, which the server closes at once.
func assertRefused(t *testing.T, address string) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(framework.Timeout))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // Read returns it as it is
		t.Errorf("the connection is not closed: %v", err)
	}
}

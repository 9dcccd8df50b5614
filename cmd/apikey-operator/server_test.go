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

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// gatewayClient sends checks with one protocol over one connection.
type gatewayClient struct {
	protocol string
	check    func() (status int, reused bool)
}

// A gateway of each protocol checks a valid key of each of two namespaces. Their connections use the whole limit, so that the first
// connection of the flood would evict one that is not protected.
func TestInvariant10_FloodDoesNotEvictConnectionsOfGateways(t *testing.T) {
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
	p.eventually("the process is ready", func() bool { status, _ := get(t, plain, "http://"+p.address("health")+"/readyz"); return status == 200 })

	var gateways []gatewayClient
	for namespace, plaintext := range tokens {
		gateways = append(gateways, grpcGateway(t, p, trust, namespace, plaintext))
		for protocol, request := range checkRequests(plaintext, namespace) {
			gateways = append(gateways, httpGateway(t, p, trust, protocol, request))
		}
	}
	for _, g := range gateways {
		if status, _ := g.check(); status != 200 {
			t.Fatalf("%s: the status for a valid key is %d", g.protocol, status)
		}
	}
	for range flood {
		for _, server := range []string{"authenticator", "grpc"} {
			assertRejected(t, p.address(server))
		}
	}
	for _, g := range gateways {
		if status, reused := g.check(); status != 200 || !reused {
			t.Errorf("%s: during the flood, the status for a valid key is %d, over the same connection: %t", g.protocol, status, reused)
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

// checkRequests returns checks of a valid key, by protocol.
func checkRequests(plaintext, namespace string) map[string]func(address string) (*http.Request, error) {
	const get, post = http.MethodGet, http.MethodPost
	request := func(method, path, body string, headers ...string) func(address string) (*http.Request, error) {
		return func(address string) (*http.Request, error) {
			check, err := http.NewRequest(method, "https://"+address+strings.Replace(path, "{namespace}", namespace, 1), strings.NewReader(body))
			for _, header := range headers {
				name, value, _ := strings.Cut(header, ": ")
				check.Header.Set(name, value)
			}
			return check, err
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

func httpGateway(
	t *testing.T, p *program, trust *http.Transport, protocol string, request func(address string) (*http.Request, error),
) gatewayClient {
	t.Helper()
	transport := trust.Clone()
	t.Cleanup(transport.CloseIdleConnections)
	return gatewayClient{protocol, func() (status int, reused bool) {
		t.Helper()
		check, err := request(p.address("authenticator"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), framework.Timeout)
		defer cancel()
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
		})
		response, err := transport.RoundTrip(check.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode, reused
	}}
}

func grpcGateway(t *testing.T, p *program, trust *http.Transport, namespace, plaintext string) gatewayClient {
	t.Helper()
	connection := p.dialGRPC(trust)
	var last net.Addr
	return gatewayClient{"envoy-grpc", func() (status int, reused bool) {
		t.Helper()
		var server peer.Peer
		status, err := check(t, connection, map[string]string{"namespace": namespace}, plaintext, grpc.Peer(&server))
		framework.Must(t, err)
		reused = last != nil && last.String() == server.LocalAddr.String()
		last = server.LocalAddr
		return status, reused
	}}
}

// assertRejected asserts that the server closes a new connection at once.
func assertRejected(t *testing.T, address string) {
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

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// authorinoVersion is the version in hack/authorino. docs/benchmarks.md names it.
const authorinoVersion = "v0.25.0"

// TestAuthorino measures checks by Authorino, and by the authenticator with the same keys.
func TestAuthorino(t *testing.T) {
	env := testenv.Start(t)
	env.InstallCRDs(t, "github.com/kuadrant/authorino@"+authorinoVersion, "install/crd/authorino.kuadrant.io_authconfigs.yaml")
	table := report.Table{Header: []string{
		"keys", "protocol", "checked by", "checks per second", "processor time, µs", "p50 at 1 000 /s, µs", "p99, µs",
	}}
	for _, count := range []int{1, 100, 1_000, 10_000} {
		ours := newServer(t, "", population{keys: count, namespaces: 1})
		theirs := startAuthorino(t, env, ours)
		overHTTP := inTurns(ladderTurns, ours.climbHTTP("/auth/forward/{namespace}"), theirs.climbHTTP("/check"))
		overGRPC := inTurns(ladderTurns, ours.climbGRPC(), theirs.climbGRPC())
		table.Rows = append(table.Rows, rowOf(count, "HTTP", "apikey-operator", overHTTP[0]), rowOf(count, "HTTP", "Authorino", overHTTP[1]),
			rowOf(count, "gRPC", "apikey-operator", overGRPC[0]), rowOf(count, "gRPC", "Authorino", overGRPC[1]))
		framework.Must(t, ours.Stop())
		framework.Must(t, theirs.Stop())
	}
	writeSection(t, "make bench-authorino", "", report.Report{Tables: []report.Table{table}})
}

func (s *server) climbHTTP(path string) func() climbed {
	s.t.Helper()
	return climb(s.t, s.checks(path, s.known), s.openLoop(path))
}

func (s *server) climbGRPC() func() climbed {
	s.t.Helper()
	return climb(s.t, s.checksGRPC(authorization, s.known), s.openLoopGRPC(authorization))
}

func rowOf(keys int, protocol, program string, samples []climbed) []string {
	return []string{
		report.Thousands(keys), protocol, program, medianOf(samples, func(s climbed) float64 { return s.load.perSecond }),
		medianOf(samples, func(s climbed) float64 { return s.cpu[0] }), medianOf(samples, func(s climbed) float64 { return s.p50 }),
		medianOf(samples, func(s climbed) float64 { return s.latency.p99 }),
	}
}

// authConfig accepts the keys of all Secrets of its namespace with the label, and returns no headers.
const authConfig = `
apiVersion: authorino.kuadrant.io/v1beta3
kind: AuthConfig
metadata: {namespace: NAMESPACE, name: shop}
spec:
  hosts: [shop.example, 127.0.0.1]
  authentication:
    keys:
      apiKey: {selector: {matchLabels: {app: shop}}}
      credentials: {customHeader: {name: X-API-Key}}
`

// startAuthorino starts an Authorino that has the keys of a server, and returns when it accepts them over HTTP and gRPC.
func startAuthorino(t *testing.T, env *testenv.Env, keysOf *server) *server {
	t.Helper()
	namespace := env.Namespace(t)
	storeSecrets(t, env, namespace, keysOf.tokens())
	env.Apply(t, strings.ReplaceAll(authConfig, "NAMESPACE", namespace), "--filename=-")
	s := &server{
		t: t, scheme: "http", known: keysOf.known, address: binaries.FreeAddress(t), grpcAddress: binaries.FreeAddress(t),
		operations: binaries.FreeAddress(t),
	}
	s.Process = binaries.Start(t, process.Command{
		Path: binaries.Path(t, "authorino", "authorino"),
		Args: []string{
			"server", "--watch-namespace=" + namespace, "--ext-auth-http-port=" + portOf(t, s.address),
			"--ext-auth-grpc-port=" + portOf(t, s.grpcAddress), "--oidc-http-port=" + portOf(t, binaries.FreeAddress(t)),
			"--metrics-addr=" + binaries.FreeAddress(t), "--health-probe-addr=" + s.operations,
			"--log-level=error", // the default logs each request
		},
		Env: []string{"KUBECONFIG=" + env.Kubeconfig(t, env.Config), "GOGC=200"}, // as the server has
		Log: filepath.Join(t.TempDir(), "log"), Ready: process.HTTPReady("http://" + s.operations + "/readyz"),
	})
	s.waitUntilAllAreAccepted()
	s.expectGrantedOverGRPC()
	return s
}

// storeSecrets creates a Secret for each token.
func storeSecrets(t *testing.T, env *testenv.Env, namespace string, tokens []string) {
	t.Helper()
	var creating errgroup.Group
	creating.SetLimit(16)
	for i, token := range tokens {
		creating.Go(func() error {
			return env.Client.Create(t.Context(), &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: namespace, Name: fmt.Sprint("key-", i), Labels: map[string]string{"authorino.kuadrant.io/managed-by": "authorino", "app": "shop"},
				},
				StringData: map[string]string{"api_key": token},
			})
		})
	}
	framework.Must(t, creating.Wait())
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	framework.Must(t, err)
	return port
}

func (s *server) waitUntilAllAreAccepted() {
	s.t.Helper()
	for _, target := range targetsOf(s.t, "http://"+s.address+"/check", s.known) {
		framework.EventuallyWithin(s.t, time.Minute, framework.PollInterval, "the key is accepted", func() bool {
			request, err := target.Request()
			framework.Must(s.t, err)
			response, err := http.DefaultClient.Do(request)
			framework.Must(s.t, err)
			return response.Body.Close() == nil && response.StatusCode == http.StatusOK
		})
	}
}

// expectGrantedOverGRPC expects that the check that the load generators send over gRPC is granted.
func (s *server) expectGrantedOverGRPC() {
	s.t.Helper()
	connection, err := grpc.NewClient(s.grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	framework.Must(s.t, err)
	defer func() { framework.Must(s.t, connection.Close()) }()
	response, err := authv3.NewAuthorizationClient(connection).Check(s.t.Context(), checkWith(s.t, s.known))
	framework.Must(s.t, err)
	if code := codes.Code(response.Status.Code); code != codes.OK {
		s.t.Fatalf("the response over gRPC is %s: %v", code, response)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

func TestChecker_LogsDenialsAtDebugLevel(t *testing.T) {
	var out bytes.Buffer
	address := setup{log: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}.serve(t)
	send(t, address, httpCheck("forward", "X-API-Key: "+readToken)) // granted: not logged
	send(t, address, httpCheck("forward", "X-API-Key: sq_unknown"))
	send(t, address, httpCheck("envoy", "X-API-Key: "+expiredToken))
	send(t, address, httpCheckOf("nginx", "POST", "X-API-Key: "+readToken))

	want := []map[string]any{
		{"protocol": "forward", "decision": "unauthenticated", "reason": "KeyUnknown"},
		{"protocol": "envoy", "decision": "unauthenticated", "reason": "KeyExpired", "keyID": "expired-uid"},
		{"protocol": "nginx", "decision": "forbidden", "reason": "NoWriteAccess", "keyID": "reader-uid"},
	}
	for _, line := range want {
		maps.Copy(line, map[string]any{"level": "DEBUG", "msg": "Denied", "namespace": "shop"})
	}
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

func TestChecker_LogsAConfigErrorOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	address := setup{log: slog.New(slog.NewJSONHandler(&out, nil))}.serve(t)
	for range 3 {
		send(t, address, head("GET /auth/nginx/shop"))
		send(t, address, httpCheck("forward")) // denied: not logged at this level
	}
	want := []map[string]any{{"level": "WARN", "protocol": "nginx", "msg": "A gateway is misconfigured: The X-Original-Method header of the " +
		"check is missing, repeated or not a method. In the location that auth_request names, set proxy_set_header X-Original-Method " +
		"$request_method;"}}
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

func TestChecker_LogsANamespaceWithoutKeysOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	s := setup{log: slog.New(slog.NewJSONHandler(&out, nil))}
	address := s.serve(t)
	namespaces := []string{"nowhere", "sh-p", "nowhere", strings.Repeat("n", 62)}
	var want []map[string]any
	expectWarning := func(protocol string) {
		want = append(want, map[string]any{"level": "WARN", "protocol": protocol, "namespace": "nowhere", "msg": "A gateway sent a check for a " +
			"namespace without API keys: correct the namespace in the configuration of the gateway, or create a key in this namespace."})
	}
	for _, protocol := range protocols {
		for _, token := range []string{"sq_unknown", deactivatedToken, "a b", ""} { // invalid keys in a namespace with keys
			assertResponse(t, send(t, address, httpCheck(protocol, "X-API-Key: "+token)), unauthenticated)
		}
		for _, namespace := range namespaces {
			for _, headers := range [][]string{nil, {"X-API-Key: " + readToken}, {"X-API-Key: " + bothToken}} {
				request := strings.Replace(httpCheck(protocol, headers...), "/shop", "/"+namespace, 1)
				assertResponse(t, send(t, address, request), unauthenticated)
			}
		}
		expectWarning(protocol)
	}
	for _, namespace := range namespaces {
		send(t, address, strings.Replace(review(readToken), "/shop", "/"+namespace, 1))
	}
	expectWarning("tokenreview")
	for _, namespace := range namespaces {
		send(t, address, strings.Replace(introspect(readToken, readToken), "/shop", "/"+namespace, 1))
	}
	expectWarning("introspect")
	envoy := s.serveEnvoy(t, "")
	for _, namespace := range namespaces {
		check := newCheck("headers", "GET", "X-API-Key: "+readToken)
		check.Attributes.ContextExtensions["namespace"] = namespace
		assertCheck(t, envoy, check, inGRPC(unauthenticated, ""))
	}
	expectWarning("envoy-grpc")
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

func TestInvariant4_NoNamespaceIsLoggedAsEmptyBeforeTheSync(t *testing.T) {
	var out bytes.Buffer
	address := setup{unsynced: true, log: slog.New(slog.NewJSONHandler(&out, nil))}.serve(t)
	for _, protocol := range protocols {
		assertResponse(t, send(t, address, httpCheck(protocol, "X-API-Key: "+readToken)), unavailable)
	}
	if lines := logged(t, &out); len(lines) > 0 {
		t.Errorf("the log has %v", lines)
	}
}

func TestChecker_LogsAWrongPath(t *testing.T) {
	var out bytes.Buffer
	address := setup{log: slog.New(slog.NewJSONHandler(&out, nil))}.serve(t)
	for range 2 {
		send(t, address, head("GET /auth/forward/SHOP/sq_read", "X-API-Key: "+readToken))
	}
	want := []map[string]any{{"level": "WARN", "protocol": "forward", "msg": "A gateway is misconfigured: No endpoint exists at this path. Use " +
		"/auth/forward/{namespace}, where {namespace} is the Kubernetes namespace of the keys: 1 to 63 characters of a-z, 0-9 and '-', " +
		"starting and ending with a letter or digit, not percent-encoded."}}
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

// logged returns the lines of a JSON log without their times.
func logged(t *testing.T, out *bytes.Buffer) []map[string]any {
	t.Helper()
	var lines []map[string]any
	decoder := json.NewDecoder(out)
	for decoder.More() {
		var line map[string]any
		framework.Must(t, decoder.Decode(&line))
		if _, err := time.Parse(time.RFC3339Nano, line["time"].(string)); err != nil {
			t.Error(err)
		}
		delete(line, "time")
		lines = append(lines, line)
	}
	return lines
}

func TestChecker_LogsANamespaceThatIsNotServedOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	keyrings := authn.NewKeyrings([]string{"bank"})
	server := httptest.NewServer(gateway.NewHandler(authn.NewAuthenticator(keyrings, 0, time.Now), gateway.Options{
		InsufficientAccessStatus: http.StatusUnauthorized,
		Metrics:                  gateway.NewMetrics(prometheus.NewRegistry(), keyrings),
		Log:                      slog.New(slog.NewJSONHandler(&out, nil)),
	}))
	t.Cleanup(server.Close)
	var want []map[string]any
	for _, protocol := range protocols {
		for _, token := range []string{readToken, "sq_unknown", ""} {
			assertResponse(t, send(t, server.Listener.Addr().String(), httpCheck(protocol, "X-API-Key: "+token)), unavailable)
		}
		want = append(want, map[string]any{"level": "WARN", "protocol": protocol, "namespace": "shop", "msg": "A gateway sent a check for a " +
			"namespace that is not one of --namespaces, and got the status 503: correct the namespace in the configuration of the gateway, or " +
			"add it to --namespaces."})
	}
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

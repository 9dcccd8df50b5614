// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// askEverything gets each verdict once from each protocol.
func askEverything(t *testing.T, address string) {
	t.Helper()
	for _, protocol := range protocols {
		send(t, address, askMethod(protocol, "GET", "X-API-Key: "+readToken))
		send(t, address, askMethod(protocol, "GET"))
		send(t, address, askMethod(protocol, "GET", "X-API-Key: sq_unknown"))
		send(t, address, askMethod(protocol, "GET", "X-API-Key: "+deactivatedToken))
		send(t, address, askMethod(protocol, "POST", "X-API-Key: "+readToken))
		send(t, address, ask(protocol, "X-Original-Method: A", "X-Forwarded-Method: B", "Method: C"))
		send(t, address, head("GET /auth/"+protocol+"/"))
	}
	for _, token := range []string{readToken, "", "sq_unknown", deactivatedToken, "sq_ \xff"} {
		send(t, address, review(token))
		send(t, address, introspect(token, readToken))
		send(t, address, introspectForm("token=sq_read", "X-API-Key: "+token))
	}
	send(t, address, introspect(readToken, writeToken))
	for path, contentType := range map[string]string{reviewPath: jsonType, introspectPath: formType} {
		send(t, address, post(path, "sq_read", contentType))
		send(t, address, post(path+"/sq_read", "", contentType))
	}
	send(t, address, head("GET /elsewhere"))
}

func TestAnswersAreCountedByProtocolAndVerdict(t *testing.T) {
	registry := prometheus.NewRegistry()
	askEverything(t, setup{registry: registry}.serve(t))
	send(t, setup{unsynced: true, registry: prometheus.NewRegistry()}.serve(t), ask("nginx"))

	want := map[string]float64{}
	for _, protocol := range protocols {
		maps.Copy(want, map[string]float64{
			"apikey_authentications_total{" + protocol + ",granted}":         1,
			"apikey_authentications_total{" + protocol + ",unauthenticated}": 3,
			"apikey_authentications_total{" + protocol + ",forbidden}":       1,
			"apikey_authentications_total{" + protocol + ",malformed}":       2,
			"apikey_authentications_total{" + protocol + ",unavailable}":     0,
			"apikey_authentication_duration_seconds{" + protocol + "}":       7,
		})
	}
	maps.Copy(want, map[string]float64{
		"apikey_authentications_total{tokenreview,granted}":         1,
		"apikey_authentications_total{tokenreview,unauthenticated}": 3,
		"apikey_authentications_total{tokenreview,forbidden}":       0,
		"apikey_authentications_total{tokenreview,malformed}":       3,
		"apikey_authentications_total{tokenreview,unavailable}":     0,
		"apikey_authentication_duration_seconds{tokenreview}":       7,
		// What the caller may not ask counts as what the caller is.
		"apikey_authentications_total{introspect,granted}":         2,
		"apikey_authentications_total{introspect,unauthenticated}": 7,
		"apikey_authentications_total{introspect,forbidden}":       1,
		"apikey_authentications_total{introspect,malformed}":       3,
		"apikey_authentications_total{introspect,unavailable}":     0,
		"apikey_authentication_duration_seconds{introspect}":       13,
	})
	want["apikey_keyring_keys{}"] = 9
	want["apikey_keyring_synced{}"] = 1
	got := gather(t, registry)
	delete(got, "apikey_keyring_staleness_seconds{}")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the metrics differ (-want +got):\n%s", diff)
	}
}

func TestNotSyncedIsCountedAsUnavailable(t *testing.T) {
	registry := prometheus.NewRegistry()
	address := setup{unsynced: true, registry: registry}.serve(t)
	for _, protocol := range protocols {
		send(t, address, ask(protocol, "X-API-Key: "+readToken))
	}
	got := gather(t, registry)
	for _, protocol := range protocols {
		if n := got["apikey_authentications_total{"+protocol+",unavailable}"]; n != 1 {
			t.Errorf("%v answers of %s were counted as unavailable, want 1", n, protocol)
		}
	}
	if got["apikey_keyring_synced{}"] != 0 || got["apikey_keyring_keys{}"] != 0 {
		t.Errorf("an empty keyring says of itself: %v", got)
	}
}

func TestAgeOfTheLastWordGrows(t *testing.T) {
	registry, keyring := prometheus.NewRegistry(), authn.NewKeyring()
	gateway.NewMetrics(registry, keyring)
	if err := keyring.Replace(keys(), "1"); err != nil {
		t.Fatal(err)
	}
	age := func() float64 { return gather(t, registry)["apikey_keyring_staleness_seconds{}"] }
	first := age()
	if second := age(); first <= 0 || first > timeout.Seconds() || second <= first {
		t.Errorf("right after the word it came %v seconds ago, and then %v", first, second)
	}
}

// gather returns each series as name{label values} with its value; of a histogram, the number of observations.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			series[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = valueOf(family.GetType(), metric)
		}
	}
	return series
}

func valueOf(kind dto.MetricType, metric *dto.Metric) float64 {
	switch kind {
	case dto.MetricType_COUNTER:
		return metric.GetCounter().GetValue()
	case dto.MetricType_HISTOGRAM:
		return float64(metric.GetHistogram().GetSampleCount())
	default:
		return metric.GetGauge().GetValue()
	}
}

func TestRefusalsAreLoggedAtDebugLevel(t *testing.T) {
	var out bytes.Buffer
	address := setup{log: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}.serve(t)
	send(t, address, ask("forward", "X-API-Key: "+readToken)) // granted: not logged
	send(t, address, ask("forward", "X-API-Key: sq_unknown"))
	send(t, address, ask("envoy", "X-API-Key: "+expiredToken))
	send(t, address, askMethod("nginx", "POST", "X-API-Key: "+readToken))

	want := []map[string]any{
		{"protocol": "forward", "decision": "unauthenticated", "reason": "KeyUnknown"},
		{"protocol": "envoy", "decision": "unauthenticated", "reason": "KeyExpired", "keyID": "expired-uid"},
		{"protocol": "nginx", "decision": "forbidden", "reason": "NoWriteAccess", "keyID": "reader-uid"},
	}
	for _, line := range want {
		maps.Copy(line, map[string]any{"level": "DEBUG", "msg": "refused", "namespace": "shop"})
	}
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

func TestAMisusedEndpointIsLoggedAsAWarningOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	address := setup{log: slog.New(slog.NewJSONHandler(&out, nil))}.serve(t)
	for range 3 {
		send(t, address, head("GET /auth/nginx/shop"))
		send(t, address, ask("forward")) // a refusal: not logged at this level
	}
	want := []map[string]any{{"level": "WARN", "protocol": "nginx", "msg": "A gateway is misconfigured: The X-Original-Method header of the " +
		"check is missing, repeated or not a method. In the location that auth_request names, set proxy_set_header X-Original-Method " +
		"$request_method;"}}
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

func TestANamespaceWithoutKeysIsLoggedOnceAMinute(t *testing.T) {
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
		for _, token := range []string{"sq_unknown", deactivatedToken, "a b", ""} { // bad keys of a namespace with keys
			assertAnswer(t, send(t, address, ask(protocol, "X-API-Key: "+token)), unauthenticated)
		}
		for _, namespace := range namespaces {
			for _, headers := range [][]string{nil, {"X-API-Key: " + readToken}, {"X-API-Key: " + bothToken}} {
				request := strings.Replace(ask(protocol, headers...), "/shop", "/"+namespace, 1)
				assertAnswer(t, send(t, address, request), unauthenticated)
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
	envoy := s.envoyAsks(t, "")
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

func TestInvariant4_BeforeTheKeysAreKnownNoNamespaceIsSaidToHaveNone(t *testing.T) {
	var out bytes.Buffer
	address := setup{unsynced: true, log: slog.New(slog.NewJSONHandler(&out, nil))}.serve(t)
	for _, protocol := range protocols {
		assertAnswer(t, send(t, address, ask(protocol, "X-API-Key: "+readToken)), unavailable)
	}
	if lines := logged(t, &out); len(lines) > 0 {
		t.Errorf("the log has %v", lines)
	}
}

func TestAWrongPathIsLoggedAsAWarning(t *testing.T) {
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
		if err := decoder.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if _, err := time.Parse(time.RFC3339Nano, line["time"].(string)); err != nil {
			t.Error(err)
		}
		delete(line, "time")
		lines = append(lines, line)
	}
	return lines
}

func TestInvariant1_NoTokenAppearsInLogsOrMetrics(t *testing.T) {
	var out bytes.Buffer
	registry := prometheus.NewRegistry()
	address := setup{registry: registry, log: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}.serve(t)
	askEverything(t, address)
	for _, target := range []string{"/auth/envoy/shop/sq_read", "/auth/envoy/sq_read/", "/auth/sq_read", "/auth/nginx/shop?key=sq_read"} {
		send(t, address, head("GET "+target, "X-API-Key: sq_read sq_read"))
	}
	if out.Len() == 0 {
		t.Fatal("nothing was logged")
	}
	if strings.Contains(out.String(), "sq_") {
		t.Errorf("a token is in the log:\n%s", out.String())
	}
	for series := range gather(t, registry) {
		if strings.Contains(series, "sq_") || strings.Contains(series, "-uid") || strings.Contains(series, "Frontend") {
			t.Errorf("a key is named in the metrics: %s", series)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// sendChecks gets each verdict once from each protocol.
func sendChecks(t *testing.T, address string) {
	t.Helper()
	for _, protocol := range protocols {
		send(t, address, httpCheckOf(protocol, "GET", "X-API-Key: "+readToken))
		send(t, address, httpCheckOf(protocol, "GET"))
		send(t, address, httpCheckOf(protocol, "GET", "X-API-Key: sq_unknown"))
		send(t, address, httpCheckOf(protocol, "GET", "X-API-Key: "+deactivatedToken))
		send(t, address, httpCheckOf(protocol, "POST", "X-API-Key: "+readToken))
		send(t, address, httpCheck(protocol, "X-Original-Method: A", "X-Forwarded-Method: B", "Method: C"))
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

func TestMetrics_CountChecksByProtocolAndVerdict(t *testing.T) {
	registry := prometheus.NewRegistry()
	sendChecks(t, setup{registry: registry}.serve(t))
	send(t, setup{unsynced: true, registry: prometheus.NewRegistry()}.serve(t), httpCheck("nginx"))

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
		// If the caller is denied, its verdict counts.
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

func TestMetrics_CountChecksBeforeTheSyncAsUnavailable(t *testing.T) {
	registry := prometheus.NewRegistry()
	address := setup{unsynced: true, registry: registry}.serve(t)
	for _, protocol := range protocols {
		send(t, address, httpCheck(protocol, "X-API-Key: "+readToken))
	}
	got := gather(t, registry)
	for _, protocol := range protocols {
		if n := got["apikey_authentications_total{"+protocol+",unavailable}"]; n != 1 {
			t.Errorf("%v checks of %s were counted as unavailable, want 1", n, protocol)
		}
	}
	if got["apikey_keyring_synced{}"] != 0 || got["apikey_keyring_keys{}"] != 0 {
		t.Errorf("the metrics of an empty keyring are %v", got)
	}
}

func TestMetrics_StalenessGrows(t *testing.T) {
	registry, keyring := prometheus.NewRegistry(), authn.NewKeyring()
	gateway.NewMetrics(registry, keyring)
	framework.Must(t, keyring.Replace(keys(), "1"))
	staleness := func() float64 { return gather(t, registry)["apikey_keyring_staleness_seconds{}"] }
	first := staleness()
	if second := staleness(); first <= 0 || first > timeout.Seconds() || second <= first {
		t.Errorf("right after the list the staleness is %v, and then %v", first, second)
	}
}

// gather returns each series as name{label values} with its value; of a histogram, the number of observations.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	framework.Must(t, err)
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

func TestInvariant1_NoTokenAppearsInLogsOrMetrics(t *testing.T) {
	var out bytes.Buffer
	registry := prometheus.NewRegistry()
	address := setup{registry: registry, log: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}.serve(t)
	sendChecks(t, address)
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

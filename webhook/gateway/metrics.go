// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// malformed stands for the decision on a check that cannot be decided.
const malformed authn.Decision = 0

// Metrics count and time the checks. They name no key and no app.
type Metrics struct {
	authentications *prometheus.CounterVec
	duration        *prometheus.HistogramVec
}

// NewMetrics registers the metrics of this package and of the keys in memory.
func NewMetrics(registry prometheus.Registerer, keys authn.KeySource) *Metrics {
	m := &Metrics{
		authentications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_authentications_total",
			Help: "Checks, by protocol and verdict: granted, unauthenticated (no valid key), forbidden (the key lacks the access), " +
				"unavailable (the keys are not known at the moment) or malformed (the gateway is misconfigured). For introspect, this is the " +
				"verdict on the caller if the caller is denied, otherwise the verdict on the token.",
		}, []string{"protocol", "verdict"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apikey_authentication_duration_seconds",
			Help:    "Time from the headers of a check to its response, by protocol.",
			Buckets: []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 250e-3, 1},
		}, []string{"protocol"}),
	}
	registry.MustRegister(m.authentications, m.duration,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apikey_keyring_keys",
			Help: "Tokens that the authenticator holds in memory, including those of ended keys.",
		}, func() float64 { return float64(keys.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apikey_keyring_synced",
			Help: "1 after the authenticator has listed all keys that it may list, 0 before.",
		}, func() float64 {
			if keys.Synced() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apikey_keyring_staleness_seconds",
			Help: "Time since the Kubernetes API last sent a list, an event or a bookmark (about one a minute). Before the first, since the start.",
		}, func() float64 { return keys.Staleness(time.Now()).Seconds() }),
	)
	return m
}

// of returns the metrics of one protocol, so that a check looks up no label.
func (m *Metrics) of(protocol string) *protocolMetrics {
	metrics := &protocolMetrics{duration: m.duration.WithLabelValues(protocol)}
	for decision := range metrics.byDecision {
		verdict := "malformed"
		if d := authn.Decision(decision); d != malformed {
			verdict = d.String()
		}
		metrics.byDecision[decision] = m.authentications.WithLabelValues(protocol, verdict)
	}
	return metrics
}

// protocolMetrics are the metrics of one protocol.
type protocolMetrics struct {
	byDecision [authn.Unavailable + 1]prometheus.Counter
	duration   prometheus.Observer
}

func (m *protocolMetrics) observe(decision authn.Decision, took time.Duration) {
	m.byDecision[decision].Inc()
	m.duration.Observe(took.Seconds())
}

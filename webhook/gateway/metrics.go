// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// malformed is the decision about a request that asks no question: none.
const malformed authn.Decision = 0

// Metrics count what the gateways asked and how they were answered. No key and no app is named in them.
type Metrics struct {
	authentications *prometheus.CounterVec
	duration        *prometheus.HistogramVec
}

// NewMetrics registers the metrics of this package, and those of the Keyring that the answers come from.
func NewMetrics(registry prometheus.Registerer, keyring *authn.Keyring) *Metrics {
	m := &Metrics{
		authentications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_authentications_total",
			Help: "Questions that were answered, by protocol and verdict: granted, unauthenticated (no good key), forbidden (the key lacks " +
				"the right), unavailable (the keys are not known at the moment) or malformed (whoever asks is not set up right). Of introspect it " +
				"is the verdict on the caller, when the caller may not ask, else that on the token.",
		}, []string{"protocol", "verdict"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apikey_authentication_duration_seconds",
			Help:    "Time from a question's headers to its answer, by protocol.",
			Buckets: []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 250e-3, 1},
		}, []string{"protocol"}),
	}
	registry.MustRegister(m.authentications, m.duration,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apikey_keyring_keys",
			Help: "Tokens that the authenticator knows, those of ended keys among them.",
		}, func() float64 { return float64(keyring.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apikey_keyring_synced",
			Help: "1 once the authenticator has received all keys, 0 before.",
		}, func() float64 {
			if keyring.Synced() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apikey_keyring_staleness_seconds",
			Help: "Time since the Kubernetes API last sent keys, a change or a bookmark (about one a minute); before the first, since the start.",
		}, func() float64 { return keyring.Staleness(time.Now()).Seconds() }),
	)
	return m
}

// of returns the metrics of one protocol, so that nothing is looked up when a question is answered.
func (m *Metrics) of(protocol string) *protocolMetrics {
	answered := &protocolMetrics{duration: m.duration.WithLabelValues(protocol)}
	for decision := range answered.byDecision {
		verdict := "malformed"
		if d := authn.Decision(decision); d != malformed {
			verdict = d.String()
		}
		answered.byDecision[decision] = m.authentications.WithLabelValues(protocol, verdict)
	}
	return answered
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

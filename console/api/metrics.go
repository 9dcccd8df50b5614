// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count the answers of the API. No key and no app is named in them.
type Metrics struct {
	answers *prometheus.CounterVec
}

// NewMetrics registers the metrics of this package.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{answers: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_management_answers_total",
		Help: "Answers of the management API, by call (the operationId in openapi.json, or none) and HTTP status.",
	}, []string{"call", "code"})}
	registry.MustRegister(m.answers)
	return m
}

func (m *Metrics) observe(call string, status int) {
	m.answers.WithLabelValues(call, strconv.Itoa(status)).Inc()
}

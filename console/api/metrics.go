// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count the responses of the API. Their labels contain no key and no app name.
type Metrics struct {
	responses *prometheus.CounterVec
}

// NewMetrics registers the metrics of this package.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{responses: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_management_answers_total",
		Help: "Responses of the REST API of the console, by call (the operationId in openapi.json, or none) and HTTP status.",
	}, []string{"call", "code"})}
	registry.MustRegister(m.responses)
	return m
}

func (m *Metrics) observe(route string, status int) {
	m.responses.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

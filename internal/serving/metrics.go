// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// processMetrics are the metrics of the connections of a process.
type processMetrics struct {
	open              *prometheus.GaugeVec
	evicted, rejected *prometheus.CounterVec
}

// newMetrics returns the metrics, and registers them unless registry is nil.
func newMetrics(registry prometheus.Registerer) *processMetrics {
	factory, byServer := promauto.With(registry), []string{"server"}
	return &processMetrics{
		open: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apikey_connections",
			Help: "Number of open connections, by server.",
		}, byServer),
		evicted: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_connections_evicted_total",
			Help: "Connections without a granted request that were closed because the limit was reached or memory was low, by server.",
		}, byServer),
		rejected: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_connections_rejected_total",
			Help: "New connections that were rejected because connections with granted requests used the whole limit, by server.",
		}, byServer),
	}
}

// connectionMetrics are the metrics of the connections of one server.
type connectionMetrics struct {
	open              prometheus.Gauge
	evicted, rejected prometheus.Counter
}

func (m *processMetrics) of(server string) *connectionMetrics {
	return &connectionMetrics{
		open:     m.open.WithLabelValues(server),
		evicted:  m.evicted.WithLabelValues(server),
		rejected: m.rejected.WithLabelValues(server),
	}
}

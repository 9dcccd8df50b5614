// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// processMetrics count the connections of all servers of a process.
type processMetrics struct {
	open              *prometheus.GaugeVec
	evicted, rejected *prometheus.CounterVec
}

// newMetrics registers the metrics, unless the registry is nil.
func newMetrics(registry prometheus.Registerer) *processMetrics {
	factory, byServer := promauto.With(registry), []string{"server"}
	return &processMetrics{
		open: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apikey_connections",
			Help: "Open connections, by server.",
		}, byServer),
		evicted: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_connections_evicted_total",
			Help: "Connections without any granted request that were closed to make room for others, or because memory was short, by server.",
		}, byServer),
		rejected: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_connections_rejected_total",
			Help: "New connections that were closed at once, because the limit was reached by connections with granted requests, by server.",
		}, byServer),
	}
}

// connectionMetrics count the connections of one server.
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

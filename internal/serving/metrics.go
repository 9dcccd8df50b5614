// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// connectionMetrics are the metrics of the connections of one server.
type connectionMetrics struct {
	open              prometheus.Gauge
	evicted, rejected prometheus.Counter
}

// newConnectionMetrics returns the metrics of a server, and registers them unless registry is nil.
func newConnectionMetrics(server string, registry prometheus.Registerer) *connectionMetrics {
	factory := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"server": server}, registry))
	return &connectionMetrics{
		open: factory.NewGauge(prometheus.GaugeOpts{
			Name: "apikey_connections",
			Help: "Number of open connections, by server.",
		}),
		evicted: factory.NewCounter(prometheus.CounterOpts{
			Name: "apikey_connections_evicted_total",
			Help: "Connections without a granted request that were closed because the limit was reached or memory was low, by server.",
		}),
		rejected: factory.NewCounter(prometheus.CounterOpts{
			Name: "apikey_connections_rejected_total",
			Help: "New connections that were rejected because connections with granted requests used the whole limit, by server.",
		}),
	}
}

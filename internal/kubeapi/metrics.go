// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// The reasons to replace a watch by a new list and watch.
const (
	reasonSilent        = "silent"
	reasonOlderRevision = "older_revision"
	reasonAfterOutage   = "after_outage"
)

// Metrics are the metrics of the watches of a process. It implements prometheus.Collector for their staleness.
type Metrics struct {
	restarts  *prometheus.CounterVec
	staleness *prometheus.Desc

	mutex       sync.Mutex
	collections []*collection
}

// NewMetrics registers the metrics of the watches.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_kubernetes_watch_restarts_total",
			Help: "Watches of the Kubernetes API that a new list and watch replaced, by reason: silent (nothing was received for minutes), " +
				"older_revision (the API has gone back, as after a restore of etcd), after_outage (a precaution after each outage).",
		}, []string{"reason"}),
		staleness: prometheus.NewDesc("apikey_kubernetes_watch_staleness_seconds",
			"How long the watch of a resource has received nothing. The Kubernetes API sends a bookmark about once a minute.",
			[]string{"resource"}, nil),
	}
	for _, reason := range []string{reasonSilent, reasonOlderRevision, reasonAfterOutage} {
		m.restarts.WithLabelValues(reason) // from 0 on, so that an alert notices the first restart
	}
	registry.MustRegister(m.restarts, m)
	return m
}

func (m *Metrics) restarted(reason string) { m.restarts.WithLabelValues(reason).Inc() }

func (m *Metrics) add(watched *collection) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.collections = append(m.collections, watched)
}

func (m *Metrics) remove(watched *collection) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.collections = slices.DeleteFunc(m.collections, func(c *collection) bool { return c == watched })
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- m.staleness }

// Collect implements prometheus.Collector. For several watches of a resource it reports the longest staleness.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	longest := map[string]float64{}
	for _, watched := range m.collections {
		longest[watched.resource] = max(longest[watched.resource], watched.staleness().Seconds())
	}
	for resource, seconds := range longest {
		metrics <- prometheus.MustNewConstMetric(m.staleness, prometheus.GaugeValue, seconds, resource)
	}
}

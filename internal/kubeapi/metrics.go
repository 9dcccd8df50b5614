// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a watch was replaced by a new list and watch.
const (
	reasonSilent        = "silent"
	reasonOlderRevision = "older_revision"
	reasonAfterOutage   = "after_outage"
)

// Metrics are those of a process's watches. It is a collector itself, for the staleness.
type Metrics struct {
	restarts  *prometheus.CounterVec
	staleness *prometheus.Desc

	mutex       sync.Mutex
	collections []*collection
}

// NewMetrics registers the metrics of this package.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikey_kubernetes_watch_restarts_total",
			Help: "Watches of the Kubernetes API that were replaced by a new list and watch, by reason: silent (nothing was sent for " +
				"minutes), older_revision (the API has gone back, as after a restore of etcd), after_outage (to be sure after one).",
		}, []string{"reason"}),
		staleness: prometheus.NewDesc("apikey_kubernetes_watch_staleness_seconds",
			"How long the Kubernetes API has sent nothing on the watch of a resource. It sends something about once a minute.",
			[]string{"resource"}, nil),
	}
	for _, reason := range []string{reasonSilent, reasonOlderRevision, reasonAfterOutage} {
		m.restarts.WithLabelValues(reason) // so that an alert sees the first one
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

// Describe describes the staleness.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- m.staleness }

// Collect measures the staleness, of several watches of a resource the longest.
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

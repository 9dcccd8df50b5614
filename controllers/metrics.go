// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

var (
	// endReasons are the reasons of keys that have ended.
	endReasons = []string{v1alpha1.ReasonDeactivated, v1alpha1.ReasonExpired}
	// conflictReasons are the reasons of keys that wait for a user to act.
	conflictReasons = []string{
		v1alpha1.ReasonAppNameConflict, v1alpha1.ReasonTokenHashConflict, v1alpha1.ReasonSecretConflict, v1alpha1.ReasonSecretRefused,
		v1alpha1.ReasonUnreadable,
	}
)

// Values of the label object of writesTotal.
const (
	writtenStatus = "status"
	writtenSecret = "secret"
)

var (
	writesTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_writes_total",
		Help: "Writes of API key statuses and one-time Secrets that the controller sent to the Kubernetes API.",
	}, []string{"object"})
	retryingKeys = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "apikey_retrying_keys",
		Help: "API keys that the controller retries with a growing backoff.",
	})
	throttledKeys = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "apikey_throttled_keys",
		Help: "API keys that wait for a worker, because their namespace or deferred work has reached its limit. workqueue_depth excludes them.",
	})
	issuedTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apikey_issued_total",
		Help: "API keys issued: minted tokens handed over and imported tokens accepted.",
	})
	reissuedTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apikey_reissued_total",
		Help: "Tokens minted for a key whose earlier claim is void, because a controller stopped during the handover.",
	})
	rotatedTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apikey_rotated_total",
		Help: "Tokens of issued API keys that were replaced by another one, minted or imported.",
	})
	rotationDelay = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apikey_rotation_delay_seconds",
		Help: "How long the oldest rotation that is not finished has been due, in seconds; 0 if there is none.",
	}, delayOfOldestRotation)
	endedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_ended_total",
		Help: "API keys that were deactivated or expired, by reason.",
	}, []string{"reason"})
	usageCollectionsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_usage_collections_total",
		Help: "Collections of the last uses of tokens from authenticators, by result.",
	}, []string{"result"})
	lastUsesTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apikey_last_uses_recorded_total",
		Help: "Writes of API key statuses that record a later use of a token.",
	})
	conflictsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_conflicts_total",
		Help: "API keys that the controller cannot issue or rotate until a user acts, by reason.",
	}, []string{"reason"})
)

// Values of the label result of usageCollectionsTotal.
const (
	collectionSucceeded = "success"
	collectionFailed    = "failure"
)

// RegisterMetrics adds the controller's metrics to a registry. It creates all counters with the value 0: Prometheus detects no increase of
// a counter that starts at 1.
func RegisterMetrics(registry prometheus.Registerer) {
	for _, reason := range endReasons {
		endedTotal.WithLabelValues(reason)
	}
	for _, reason := range conflictReasons {
		conflictsTotal.WithLabelValues(reason)
	}
	for _, object := range []string{writtenStatus, writtenSecret} {
		writesTotal.WithLabelValues(object)
	}
	for _, result := range []string{collectionSucceeded, collectionFailed} {
		usageCollectionsTotal.WithLabelValues(result)
	}
	registry.MustRegister(writesTotal, retryingKeys, throttledKeys, issuedTotal, reissuedTotal, rotatedTotal, rotationDelay, expiring,
		endedTotal, conflictsTotal, usageCollectionsTotal, lastUsesTotal)
}

// oldestRotation is the time at which the oldest rotation was due that is not finished, or nil.
var oldestRotation atomic.Pointer[time.Time]

func delayOfOldestRotation() float64 {
	due := oldestRotation.Load()
	if due == nil {
		return 0
	}
	return max(0, time.Since(*due).Seconds())
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// Actions of events: what the controller was doing.
const (
	actionIssue    = "Issue"
	actionHandOver = "HandOver"
	actionEnd      = "End"
)

var (
	// endReasons are those for which a key comes to its end.
	endReasons = []string{v1alpha1.ReasonDeactivated, v1alpha1.ReasonExpired}
	// conflictReasons are those for which a key waits until a person acts.
	conflictReasons = []string{
		v1alpha1.ReasonAppNameConflict, v1alpha1.ReasonTokenHashConflict, v1alpha1.ReasonSecretConflict, v1alpha1.ReasonSecretRefused,
		v1alpha1.ReasonUnreadable,
	}
)

// What the controller writes.
const (
	writtenStatus = "status"
	writtenSecret = "secret"
)

var (
	writesTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_writes_total",
		Help: "Writes that the controller sent to the Kubernetes API, of the status of API keys and of one-time Secrets.",
	}, []string{"object"})
	retryingKeys = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "apikey_retrying_keys",
		Help: "API keys that the controller tries again at growing intervals.",
	})
	parkedKeys = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "apikey_parked_keys",
		Help: "API keys that wait until their namespace, or work that can wait, has a free worker. They are not in workqueue_depth.",
	})
	issuedTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apikey_issued_total",
		Help: "API keys issued: tokens handed over and brought tokens accepted.",
	})
	mintedAgainTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "apikey_minted_again_total",
		Help: "Tokens minted for a key whose earlier token was never handed over.",
	})
	endedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_ended_total",
		Help: "API keys that came to their end, by reason.",
	}, []string{"reason"})
	conflictsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apikey_conflicts_total",
		Help: "API keys that could not be issued until a person acts, by reason.",
	}, []string{"reason"})
)

// RegisterMetrics adds the controller's metrics to a registry. All counters are there from the start: one that began with 1 would show
// no increase.
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
	registry.MustRegister(writesTotal, retryingKeys, parkedKeys, issuedTotal, mintedAgainTotal, endedTotal, conflictsTotal)
}

// announce tells what became of a key, once it is on record: an event for the key's owner, a log line and a metric for the operator.
func (r *APIKeyReconciler) announce(ctx context.Context, before, key *v1alpha1.APIKey) {
	reason := readyReason(key)
	if reason == readyReason(before) {
		return
	}
	log.FromContext(ctx).Info("the state of the key changed", "uid", key.UID, "reason", reason)
	message := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady).Message
	switch {
	case reason == v1alpha1.ReasonIssued:
		issuedTotal.Inc()
		r.Events.Eventf(key, nil, corev1.EventTypeNormal, reason, actionIssue, "%s", message)
	case slices.Contains(endReasons, reason):
		endedTotal.WithLabelValues(reason).Inc()
		r.Events.Eventf(key, nil, corev1.EventTypeNormal, reason, actionEnd, "%s", message)
	case slices.Contains(conflictReasons, reason):
		conflictsTotal.WithLabelValues(reason).Inc()
		r.Events.Eventf(key, nil, corev1.EventTypeWarning, reason, actionIssue, "%s", message)
	}
}

// announceSecretRemoved tells that the time of a Secret is over.
func (r *APIKeyReconciler) announceSecretRemoved(key *v1alpha1.APIKey, name string) {
	r.Events.Eventf(key, nil, corev1.EventTypeNormal, "SecretRemoved", actionHandOver,
		"The one-time Secret %q was removed: its time to live is over.", name)
}

// recordClockWarning records that something that the clock demands is not done yet.
func (r *APIKeyReconciler) recordClockWarning(key *v1alpha1.APIKey, action string, reason error) {
	r.Events.Eventf(key, nil, corev1.EventTypeWarning, "ClockNotTrusted", action,
		"What is due waits until the controller can trust its clock, and is tried again every %s: %v.", clockDelay, reason)
}

// announceMintedAgain tells that a token is minted although a hash was on record: no Secret held that hash's token, so it was never
// handed over.
func (r *APIKeyReconciler) announceMintedAgain(key *v1alpha1.APIKey) {
	mintedAgainTotal.Inc()
	r.Events.Eventf(key, nil, corev1.EventTypeWarning, "MintedAgain", actionIssue,
		"A token of this key was minted earlier but never handed over: it is void, and a new one is minted.")
}

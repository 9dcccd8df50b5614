// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// setPending records that the controller is working. A key whose Secret could not be written stays stalled until the next attempt is known
// to have succeeded or failed.
func (r *APIKeyReconciler) setPending(key *v1alpha1.APIKey, message string) {
	switch {
	case waitsForSecret(key):
	case apikey.IsIssued(key):
		r.setRotating(key, v1alpha1.ReasonRotating, message)
	default:
		setConditions(key, conditions{
			ready: metav1.ConditionUnknown, active: metav1.ConditionFalse, reason: v1alpha1.ReasonPending, message: message,
		})
	}
}

// setWaiting records that the key waits for another key.
func (r *APIKeyReconciler) setWaiting(key *v1alpha1.APIKey, reason, message string) {
	if apikey.IsIssued(key) {
		r.setRotating(key, reason, message)
		return
	}
	setConditions(key, conditions{ready: metav1.ConditionUnknown, active: metav1.ConditionFalse, reason: reason, message: message})
}

// setRotating records that the key is accepted, and how far the rotation of its token is.
func (r *APIKeyReconciler) setRotating(key *v1alpha1.APIKey, reason, message string) {
	rotating := issuedConditions(key)
	rotating.reconciling = &metav1.Condition{Reason: reason, Message: message, LastTransitionTime: r.timestamp()}
	setConditions(key, rotating)
}

// setIssued records that the key is accepted.
func setIssued(key *v1alpha1.APIKey) { setConditions(key, issuedConditions(key)) }

func issuedConditions(key *v1alpha1.APIKey) conditions {
	message := "The token is accepted. It was handed over in a Secret."
	if key.Spec.TokenHash != "" {
		message = "The imported token is accepted."
	}
	return conditions{ready: metav1.ConditionTrue, active: metav1.ConditionTrue, reason: v1alpha1.ReasonIssued, message: message}
}

// setEnded records that the key is no longer accepted, as its spec declares.
func setEnded(key *v1alpha1.APIKey, state apikey.State) {
	reason, message := v1alpha1.ReasonDeactivated, "The key was deactivated and is no longer accepted."
	switch {
	case state == apikey.StateExpired:
		reason, message = v1alpha1.ReasonExpired, "The key has expired and is no longer accepted."
	case !key.DeletionTimestamp.IsZero():
		message = "The key is being deleted and is no longer accepted."
	}
	setConditions(key, conditions{ready: metav1.ConditionTrue, active: metav1.ConditionFalse, reason: reason, message: message})
}

// setStalled records what a user must do before the controller continues, and whether the key is accepted until then.
func setStalled(key *v1alpha1.APIKey, active metav1.ConditionStatus, reason, message string) {
	setConditions(key, conditions{
		ready: metav1.ConditionFalse, active: active, stalled: true, reason: reason, message: message,
	})
}

// conditions are the conditions of a key. All have the same reason and message, except reconciling.
type conditions struct {
	ready, active   metav1.ConditionStatus
	stalled         bool
	reason, message string
	// reconciling has another reason and message, and the time at which the rotation began if the key has no such condition yet.
	reconciling *metav1.Condition
}

func setConditions(key *v1alpha1.APIKey, c conditions) {
	key.Status.ObservedGeneration = key.Generation
	set := func(conditionType string, status metav1.ConditionStatus) {
		meta.SetStatusCondition(&key.Status.Conditions, metav1.Condition{
			Type: conditionType, Status: status, Reason: c.reason, Message: c.message, ObservedGeneration: key.Generation,
		})
	}
	set(v1alpha1.ConditionReady, c.ready)
	set(v1alpha1.ConditionActive, c.active)
	if c.reconciling != nil {
		reconciling := *c.reconciling
		reconciling.Type, reconciling.Status = v1alpha1.ConditionReconciling, metav1.ConditionTrue
		reconciling.ObservedGeneration = key.Generation
		meta.SetStatusCondition(&key.Status.Conditions, reconciling)
	} else {
		meta.RemoveStatusCondition(&key.Status.Conditions, v1alpha1.ConditionReconciling)
	}
	if c.stalled {
		set(v1alpha1.ConditionStalled, metav1.ConditionTrue)
	} else {
		meta.RemoveStatusCondition(&key.Status.Conditions, v1alpha1.ConditionStalled)
	}
}

// observeGeneration records that the status applies to the current spec.
func observeGeneration(key *v1alpha1.APIKey) {
	key.Status.ObservedGeneration = key.Generation
	for i := range key.Status.Conditions {
		key.Status.Conditions[i].ObservedGeneration = key.Generation
	}
}

// isStalled reports whether the key waits for a user to act.
func isStalled(key *v1alpha1.APIKey) bool {
	return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionStalled)
}

// waitsForSecret reports whether the key is stalled because its Secret could not be written. The controller retries such keys.
func waitsForSecret(key *v1alpha1.APIKey) bool {
	reason := readyReason(key)
	return isStalled(key) && (reason == v1alpha1.ReasonSecretConflict || reason == v1alpha1.ReasonSecretRefused)
}

// readyReason returns the reason of the key's Ready condition.
func readyReason(key *v1alpha1.APIKey) string { return readyCondition(key).Reason }

// readyMessage returns the message of the key's Ready condition.
func readyMessage(key *v1alpha1.APIKey) string { return readyCondition(key).Message }

func readyCondition(key *v1alpha1.APIKey) metav1.Condition {
	return ptr.Deref(meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady), metav1.Condition{})
}

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

// setPending says that the controller is at work. A key whose Secret could not be written stays Stalled until it is known what became of
// the next try.
func setPending(key *v1alpha1.APIKey, message string) {
	if waitsForItsSecret(key) {
		return
	}
	setCondition(key, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonPending, message)
	setCondition(key, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonPending, message)
	meta.RemoveStatusCondition(&key.Status.Conditions, v1alpha1.ConditionStalled)
}

// setIssued says that the key is accepted.
func setIssued(key *v1alpha1.APIKey) {
	message := "The token is accepted. It was handed over in a Secret."
	if key.Spec.TokenHash != "" {
		message = "The token that was brought is accepted."
	}
	setCondition(key, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonIssued, message)
	setCondition(key, v1alpha1.ConditionActive, metav1.ConditionTrue, v1alpha1.ReasonIssued, message)
	meta.RemoveStatusCondition(&key.Status.Conditions, v1alpha1.ConditionStalled)
}

// setEnded says that the key is accepted no more, as its owner declared.
func setEnded(key *v1alpha1.APIKey, state apikey.State) {
	reason, message := v1alpha1.ReasonDeactivated, "The key was deactivated and is accepted no more."
	switch {
	case state == apikey.StateExpired:
		reason, message = v1alpha1.ReasonExpired, "The key has expired and is accepted no more."
	case !key.DeletionTimestamp.IsZero():
		message = "The key is being deleted and is accepted no more."
	}
	setCondition(key, v1alpha1.ConditionReady, metav1.ConditionTrue, reason, message)
	setCondition(key, v1alpha1.ConditionActive, metav1.ConditionFalse, reason, message)
	meta.RemoveStatusCondition(&key.Status.Conditions, v1alpha1.ConditionStalled)
}

// setStalled says what a person must do before the key can be issued.
func setStalled(key *v1alpha1.APIKey, conflict *apikey.Conflict) {
	setCondition(key, v1alpha1.ConditionReady, metav1.ConditionFalse, conflict.Reason, conflict.Message)
	setCondition(key, v1alpha1.ConditionActive, metav1.ConditionFalse, conflict.Reason, conflict.Message)
	setCondition(key, v1alpha1.ConditionStalled, metav1.ConditionTrue, conflict.Reason, conflict.Message)
}

// setUnreadable says what a person must do before anything is done with the key, and whether its token is accepted until then.
func setUnreadable(key *v1alpha1.APIKey, accepted metav1.ConditionStatus, message string) {
	setCondition(key, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonUnreadable, message)
	setCondition(key, v1alpha1.ConditionActive, accepted, v1alpha1.ReasonUnreadable, message)
	setCondition(key, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonUnreadable, message)
}

// observeGeneration says that the conditions hold for the key as its owner changed it.
func observeGeneration(key *v1alpha1.APIKey) {
	for i := range key.Status.Conditions {
		key.Status.Conditions[i].ObservedGeneration = key.Generation
	}
}

// isStalled says whether the key waits until a person acts.
func isStalled(key *v1alpha1.APIKey) bool {
	return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionStalled)
}

// waitsForItsSecret says whether the key is stalled because its Secret could not be written: it is tried again by and by.
func waitsForItsSecret(key *v1alpha1.APIKey) bool {
	reason := readyReason(key)
	return isStalled(key) && (reason == v1alpha1.ReasonSecretConflict || reason == v1alpha1.ReasonSecretRefused)
}

func setCondition(key *v1alpha1.APIKey, conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&key.Status.Conditions, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: message, ObservedGeneration: key.Generation,
	})
}

// readyReason is the reason of the key's Ready condition.
func readyReason(key *v1alpha1.APIKey) string { return ready(key).Reason }

// readyMessage is the message of the key's Ready condition.
func readyMessage(key *v1alpha1.APIKey) string { return ready(key).Message }

func ready(key *v1alpha1.APIKey) metav1.Condition {
	return ptr.Deref(meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady), metav1.Condition{})
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Actions of events.
const (
	actionIssue    = "Issue"
	actionHandOver = "HandOver"
	actionRotate   = "Rotate"
	actionEnd      = "End"
)

// recordTransition records a new reason of the key's Ready condition as a log line and a metric. Call it after the status was written.
// Only a conflict, which a user must resolve, is also an event: the condition is enough for the others, and an event would be a write for
// each key.
func (r *APIKeyReconciler) recordTransition(ctx context.Context, before, key *v1alpha1.APIKey) {
	r.recordRotation(before, key)
	countLastUse(before, key)
	reason := readyReason(key)
	if reason == readyReason(before) && isStalled(key) == isStalled(before) {
		return
	}
	log.FromContext(ctx).Info("The state of the key changed", "uid", key.UID, "reason", reason)
	switch {
	case reason == v1alpha1.ReasonIssued && !apikey.IsIssued(before):
		issuedTotal.Inc()
	case slices.Contains(endReasons, reason):
		endedTotal.WithLabelValues(reason).Inc()
	case isStalled(key) && slices.Contains(conflictReasons, reason):
		action := actionIssue
		if apikey.IsIssued(key) {
			action = actionRotate
		}
		conflictsTotal.WithLabelValues(reason).Inc()
		r.recordEvent(key, corev1.EventTypeWarning, reason, action, readyMessage(key))
	}
}

// recordRotation records that another token is the key's newest one.
func (r *APIKeyReconciler) recordRotation(before, key *v1alpha1.APIKey) {
	former, newest := apikey.NewestToken(before), apikey.NewestToken(key)
	if former == nil || newest == nil || former.Hash == newest.Hash {
		return
	}
	rotatedTotal.Inc()
	r.recordEvent(key, corev1.EventTypeNormal, "Rotated", actionRotate, rotationNote(key, former.Hash))
}

// recordSecretDeleted records that the controller deleted the one-time Secret after its ttl.
func (r *APIKeyReconciler) recordSecretDeleted(key *v1alpha1.APIKey, name string) {
	r.recordEvent(key, corev1.EventTypeNormal, "SecretRemoved", actionHandOver,
		fmt.Sprintf("The controller deleted the one-time Secret %q: its ttl has passed.", name))
}

// recordClockWarning records that the controller delays an action because it cannot trust its clock.
func (r *APIKeyReconciler) recordClockWarning(key *v1alpha1.APIKey, action string, reason error) {
	r.recordEvent(key, corev1.EventTypeWarning, "ClockNotTrusted", action,
		fmt.Sprintf("The controller delays this action and retries every %s, because it cannot trust its clock: %v.", clockDelay, reason))
}

// recordReissue records that the controller mints a token although the status has the claim of another one. At the first issue, no Secret
// has that token, and it was never accepted. During a rotation it is accepted, and a client may have read it before the Secret was deleted.
func (r *APIKeyReconciler) recordReissue(key *v1alpha1.APIKey) {
	reissuedTotal.Inc()
	action, note := actionIssue, "An earlier token of this key was never handed over and is void: the controller mints a new one."
	if apikey.IsIssued(key) {
		action, note = actionRotate, "A controller stopped during the rotation, and its token is not in the Secret: "+
			"the controller mints a new one. The other token is superseded, because a client may have it."
	}
	r.recordEvent(key, corev1.EventTypeWarning, "Reissued", action, note)
}

func (r *APIKeyReconciler) recordEvent(key *v1alpha1.APIKey, eventType, reason, action, note string) {
	r.Events.Eventf(key, nil, eventType, reason, action, "%s", note)
}

const (
	// maxNoteLength is the maximum length of an event's note, in bytes. The API server rejects longer ones, and the recorder then drops the
	// event.
	maxNoteLength = 1024

	ellipsis = "…"
)

// eventSource is the reporting controller of events.
const eventSource = "apikey-controller"

// NewEventRecorder returns the event recorder of the controller's process.
func NewEventRecorder(mgr manager.Manager) events.EventRecorder {
	return boundedRecorder{mgr.GetEventRecorder(eventSource)}
}

// boundedRecorder shortens the notes that the API server would reject. The other fields of an event are short: reasons and actions are
// constants, and client-go generates the event's name.
type boundedRecorder struct{ events.EventRecorder }

// Eventf records an event.
func (r boundedRecorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	r.EventRecorder.Eventf(regarding, related, eventType, reason, action, "%s", shorten(fmt.Sprintf(note, args...), maxNoteLength))
}

// shorten returns the text, cut between two characters and with an ellipsis if it is longer than the limit in bytes.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit - len(ellipsis)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}

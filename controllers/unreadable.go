// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

var (
	// recordedFields are the fields of the status that the controller cannot restore.
	recordedFields = []string{"status.tokens", "status.secretName", "status.rotationHandled", "status.deactivatedAt"}

	// decisiveFields are the fields that determine what the controller does.
	decisiveFields = append([]string{"metadata.deletionTimestamp", "spec"}, recordedFields...)
)

// reportUnreadable reports the unreadable fields of a key. The controller does nothing else with the key until a user corrects them,
// because it can neither withdraw a token that it issued nor an end that it recorded.
func (r *APIKeyReconciler) reportUnreadable(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	message := fmt.Sprintf("The controller does nothing with this key, because it cannot read some of its fields (%s): "+
		"correct them as 'kubectl explain apikey --recursive' describes them, or delete the key.", strings.Join(key.Unreadable, ", "))
	log.FromContext(ctx).Error(nil, "Cannot read some fields of the key: correct them, or delete the key",
		"uid", key.UID, "fields", key.Unreadable)
	err := r.writeUnreadable(ctx, key, message)
	switch {
	case err == nil && apikey.StateOf(key, r.Now()) == apikey.StateActive: // its Active condition changes when it expires
		return ctrl.Result{RequeueAfter: soonest(r.untilExpiry(key))}, nil
	case err == nil:
		return ctrl.Result{}, nil
	case isConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case errors.Is(err, errStatusUnreadable), apierrors.IsInvalid(err): // the status cannot be written: record only the event
		conflictsTotal.WithLabelValues(v1alpha1.ReasonUnreadable).Inc()
		r.recordEvent(key, corev1.EventTypeWarning, v1alpha1.ReasonUnreadable, actionIssue, message)
		return ctrl.Result{}, nil
	default:
		return ctrl.Result{}, err
	}
}

// errStatusUnreadable means that a write of the status would remove its unreadable fields.
var errStatusUnreadable = errors.New("the status has unreadable fields")

// writeUnreadable writes to the status that the key waits for a user to act. The API server rejects the write as invalid if the unreadable
// fields violate the schema.
func (r *APIKeyReconciler) writeUnreadable(ctx context.Context, key *v1alpha1.APIKey, message string) error {
	if key.IsUnreadable(recordedFields...) {
		return errStatusUnreadable
	}
	before := key.DeepCopy()
	accepted := metav1.ConditionFalse
	if apikey.IsIssued(key) && apikey.StateOf(key, r.Now()) == apikey.StateActive {
		accepted = metav1.ConditionTrue
	}
	setStalled(key, accepted, v1alpha1.ReasonUnreadable, message)
	if err := r.writeStatus(ctx, before, key); err != nil {
		return err
	}
	r.recordTransition(ctx, before, key)
	return nil
}

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
	// recordedFields are the fields of a status that the controller could not make again.
	recordedFields = []string{"status.tokens", "status.secretName", "status.deactivatedAt"}

	// decisiveFields are the fields that the controller acts upon.
	decisiveFields = append([]string{"metadata.deletionTimestamp", "spec"}, recordedFields...)
)

// reportUnreadable reports the fields of a key that cannot be read. Nothing else is done with the key until they are corrected: what they
// were meant to say is not known, and a token that was issued, or an end that was recorded, could not be taken back.
func (r *APIKeyReconciler) reportUnreadable(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	message := fmt.Sprintf("The controller leaves this key alone, because fields of it cannot be read (%s): "+
		"correct them as 'kubectl explain apikey --recursive' has them, or delete the key.", strings.Join(key.Unreadable, ", "))
	log.FromContext(ctx).Error(nil, "cannot read fields of the key", "uid", key.UID, "fields", key.Unreadable)
	err := r.writeUnreadable(ctx, key, message)
	switch {
	case err == nil && apikey.StateOf(key, r.Now()) == apikey.StateActive: // until it is not accepted any more
		return ctrl.Result{RequeueAfter: soonest(r.untilExpiry(key))}, nil
	case err == nil:
		return ctrl.Result{}, nil
	case wasOvertaken(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case errors.Is(err, errStatusUnreadable), apierrors.IsInvalid(err): // then an event has to do
		conflictsTotal.WithLabelValues(v1alpha1.ReasonUnreadable).Inc()
		r.Events.Eventf(key, nil, corev1.EventTypeWarning, v1alpha1.ReasonUnreadable, actionIssue, "%s", message)
		return ctrl.Result{}, nil
	default:
		return ctrl.Result{}, err
	}
}

// errStatusUnreadable means that a write of the status would lose what cannot be read of it.
var errStatusUnreadable = errors.New("the status has fields that cannot be read")

// writeUnreadable writes to the status that the key waits for a person. The API server refuses that as invalid when it cannot check the
// rest of the object.
func (r *APIKeyReconciler) writeUnreadable(ctx context.Context, key *v1alpha1.APIKey, message string) error {
	if key.IsUnreadable(recordedFields...) {
		return errStatusUnreadable
	}
	before := key.DeepCopy()
	accepted := metav1.ConditionFalse
	if apikey.IsIssued(key) && apikey.StateOf(key, r.Now()) == apikey.StateActive {
		accepted = metav1.ConditionTrue
	}
	setUnreadable(key, accepted, message)
	if err := r.writeStatus(ctx, before, key); err != nil {
		return err
	}
	r.announce(ctx, before, key)
	return nil
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"fmt"
	"regexp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// What the API server answers to the write of a Secret may repeat what was sent, and with it the token: webhooks and policies word their
// refusals as they like. So no such text goes into a log, an event or a condition.

// writeError is a write of a Secret of which it is not known whether it took effect.
type writeError struct{ secret, failure string }

func (e *writeError) Error() string {
	return fmt.Sprintf("write the one-time Secret %q: %s", e.secret, e.failure)
}

// wasRefused says whether an error means that nothing was written, and that it is not for the controller to mend. Webhooks refuse with any
// code.
func wasRefused(err error) bool {
	return refusers.MatchString(err.Error()) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) ||
		apierrors.IsBadRequest(err) || apierrors.IsNotFound(err) ||
		apierrors.IsMethodNotSupported(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// isGone says whether nothing was written because the object is not there any more.
func isGone(err error) bool {
	return apierrors.IsNotFound(err) && !refusers.MatchString(err.Error())
}

// wasOvertaken says whether nothing was written because the object is not as it was read.
func wasOvertaken(err error) bool {
	return apierrors.IsConflict(err) && !refusers.MatchString(err.Error())
}

// secretRefused tells who refused the Secret, so that a person can talk to them.
func secretRefused(name string, err error) *apikey.Conflict {
	return &apikey.Conflict{
		Reason: v1alpha1.ReasonSecretRefused,
		Message: fmt.Sprintf("Secret %q was refused (%s): nothing is issued until it is let through. %s",
			name, refuserIn(err), triesAgain),
	}
}

// triesAgain says when a Secret is written again that could not be written. It is the same at each try, which therefore changes no status.
var triesAgain = fmt.Sprintf("The controller tries again at intervals that grow from %s to %s.",
	duration.HumanDuration(secretUnwritable.delay), duration.HumanDuration(maxRetryDelay))

// refusers are the beginnings, of fixed form, that the API server itself gives to refusals.
var refusers = regexp.MustCompile(`exceeded quota: [-a-z0-9.]+` +
	`|admission webhook "[-a-z0-9.]+" denied the request` +
	`|ValidatingAdmissionPolicy '[-a-z0-9.]+' with binding '[-a-z0-9.]+' denied request` +
	`|because it is being terminated`)

func refuserIn(err error) string {
	if refuser := refusers.FindString(err.Error()); refuser != "" {
		return refuser
	}
	return failureOf(err)
}

// failureOf names an error of the API server without its text.
func failureOf(err error) string {
	if write := (*writeError)(nil); errors.As(err, &write) {
		return write.failure
	}
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return string(reason)
	}
	return "no answer"
}

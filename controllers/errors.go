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

// The API server's response to the write of a Secret may repeat the request, and with it the token, because webhooks and policies choose
// the text of their refusals. The controller therefore writes no such text to a log, an event or a condition.

// writeError is the error of a write of a Secret that may have had an effect.
type writeError struct{ secret, failure string }

func (e *writeError) Error() string {
	return fmt.Sprintf("write the one-time Secret %q: %s", e.secret, e.failure)
}

// wasRefused reports whether the API server wrote nothing, for a reason that only a user can remove. Webhooks may refuse with any code.
func wasRefused(err error) bool {
	return refusals.MatchString(err.Error()) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) ||
		apierrors.IsBadRequest(err) || apierrors.IsNotFound(err) ||
		apierrors.IsMethodNotSupported(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// isNotFound reports whether the API server wrote nothing because the object does not exist.
func isNotFound(err error) bool {
	return apierrors.IsNotFound(err) && !refusals.MatchString(err.Error())
}

// isConflict reports whether the API server wrote nothing because the object has changed since it was read.
func isConflict(err error) bool {
	return apierrors.IsConflict(err) && !refusals.MatchString(err.Error())
}

// secretWriteError returns the error of a call that writes the key's Secret: the conflict that names what refused it, or a writeError if
// the call may have had an effect. It returns other errors of calls without an effect as they are.
func secretWriteError(key *v1alpha1.APIKey, err error) error {
	switch {
	case err == nil, apierrors.IsAlreadyExists(err), isConflict(err):
		return err
	case wasRefused(err):
		return secretRefused(key, err)
	default:
		return &writeError{secret: apikey.SecretName(key), failure: failureOf(err)}
	}
}

// mayHaveWritten reports whether a call that writes the key's Secret may have had an effect. If a proxy repeats a call, the second one
// finds the Secret that the first one wrote.
func mayHaveWritten(err error) bool {
	return errors.As(err, new(*writeError)) || apierrors.IsAlreadyExists(err) || isConflict(err)
}

// secretRefused returns the conflict that names the webhook, policy or quota that refused the key's Secret.
func secretRefused(key *v1alpha1.APIKey, err error) *apikey.Conflict {
	action := "create"
	if apikey.IsIssued(key) {
		action = "update"
	}
	return &apikey.Conflict{
		Reason: v1alpha1.ReasonSecretRefused,
		Message: fmt.Sprintf("Secret %q was refused (%s): allow the controller to %s it. %s",
			apikey.SecretName(key), refusalOf(err), action, retriesWithBackoff),
	}
}

// retriesWithBackoff describes when the controller writes a Secret again. It does not name the next delay, so that a retry does not change
// the status.
var retriesWithBackoff = fmt.Sprintf("The controller retries at intervals that grow from %s to %s.",
	duration.HumanDuration(secretUnwritable.delay), duration.HumanDuration(maxBackoff))

// refusals matches the texts of fixed form with which the API server starts a refusal.
var refusals = regexp.MustCompile(`exceeded quota: [-a-z0-9.]+` +
	`|admission webhook "[-a-z0-9.]+" denied the request` +
	`|ValidatingAdmissionPolicy '[-a-z0-9.]+' with binding '[-a-z0-9.]+' denied request` +
	`|because it is being terminated`)

// refusalOf returns the text of fixed form in the error, or the failure without its text.
func refusalOf(err error) string {
	if refusal := refusals.FindString(err.Error()); refusal != "" {
		return refusal
	}
	return failureOf(err)
}

// failureOf returns the reason of an error of the API server, without its text.
func failureOf(err error) string {
	if write := (*writeError)(nil); errors.As(err, &write) {
		return write.failure
	}
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return string(reason)
	}
	return "no response"
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/webhook/authn"
)

var (
	notAccepted = unavailable("The key was not accepted within %s, and was deleted. Check that the controller is running, and try again.",
		writeTimeout)
	notDeleted = unavailable("The key was not accepted within %s, and deleting it failed. If it exists, the console deactivates it within "+
		"two minutes after the Kubernetes API responds again. Try again then.", writeTimeout)
	notCreated = unavailable("The Kubernetes API did not confirm the creation of the key. If it creates the key late, the console " +
		"deactivates that key: try again.")
	notConfirmed = unavailable("The Kubernetes API did not confirm the creation of the key, and no key is left: try again.")
	endedEarly   = unavailable("The key has ended or was deleted before its creation was finished: try again.")

	notSeen = unavailable("The key is deactivated, but this server has not seen that within %s: it may accept the key for a while longer.",
		writeTimeout)
	changeNotSeen = unavailable("The key is changed, but this server has not seen that within %s: it may check the key as before for a while "+
		"longer.", writeTimeout)

	tokenLost = unavailable("The new token may be accepted, and is lost: the Kubernetes API did not confirm the change. The former token " +
		"may end after the overlap: rotate the key again.")

	unreachableForRead  = unavailable("The Kubernetes API cannot be reached: try again.")
	unreachableForWrite = unavailable("The Kubernetes API cannot be reached, and nothing was changed: try again.")
	outcomeUnknown      = unavailable("The Kubernetes API did not confirm the change, which may have taken effect: " +
		"read the key before you try again.")
	refusedForNow    = unavailable("The Kubernetes API cannot process the request at the moment, and nothing was changed: try again.")
	kubernetesDenied = envelope.NewError(http.StatusInternalServerError,
		"The Kubernetes API denied the request of this server, and nothing was changed: see the log of this server.")

	keyNotFound     = envelope.NewError(http.StatusNotFound, "No key has this ID. An ID is a UUID, as in the list of keys.")
	alreadyInactive = envelope.NewError(http.StatusConflict, "The key is already inactive.")
	cannotChange    = envelope.NewError(http.StatusConflict, "The key has ended, which is final, and cannot be changed: create another key.")
	ownKey          = envelope.NewError(http.StatusConflict,
		"This is the key that authenticates the request: to deactivate it, add force=true to the query.")
	notIssued = envelope.NewError(http.StatusConflict,
		"The key is not issued yet, so it has no token to rotate: see its state.")
	alreadyRotating = envelope.NewError(http.StatusConflict,
		"A rotation of this key is under way, or has just ended, and only its own response has the new token. Wait until it has ended. "+
			"If you do not have the new token then, rotate the key again.")
	bootstrapKeyRotates = envelope.NewError(http.StatusConflict,
		"This is the bootstrap key of a console: to rotate it, delete the key file and restart that console.")
	ownTokenEnds = envelope.NewError(http.StatusConflict,
		"This is the key that authenticates the request, and its token would end at once: to rotate it, add force=true to the query.")
	ownKeyLoses = envelope.NewError(http.StatusConflict,
		"This is the key that authenticates the request: to take access or time from it, add force=true to the query.")
)

func unavailable(format string, args ...any) *envelope.Response {
	return envelope.NewError(http.StatusServiceUnavailable, fmt.Sprintf(format, args...)).With("Retry-After", "1")
}

// createFailed returns the response to a failed creation.
func (h *Handler) createFailed(r *request, requested *createRequest, err error) *envelope.Response {
	var (
		cleanup  *keyclient.CleanupError
		conflict *apikey.Conflict
		timeout  *keyclient.NotAcceptedError
		ended    *keyclient.EndedError
		unknown  *keyclient.OutcomeUnknownError
	)
	switch {
	case errors.As(err, &cleanup):
		h.logFailure(r, err)
		return notDeleted
	case errors.As(err, &conflict) && conflict.Reason == v1alpha1.ReasonAppNameConflict:
		return h.appNameConflict(requested.appName, h.KeyCache.holderOf(requested.appName))
	case errors.As(err, &timeout):
		h.logFailure(r, err)
		return notAccepted
	case errors.As(err, &ended):
		h.logFailure(r, err)
		return endedEarly
	case errors.As(err, &unknown):
		h.logFailure(r, err)
		return notCreated
	default:
		return h.failed(r, err)
	}
}

// confirmFailed deletes a key that was created but not confirmed, unless it has ended, and returns the response.
func (h *Handler) confirmFailed(r *request, key *v1alpha1.APIKey, err error) *envelope.Response {
	if errors.Is(err, keyclient.ErrNotFound) || errors.Is(err, keyclient.ErrAlreadyInactive) {
		h.logFailure(r, err)
		return endedEarly
	}
	if deletion := keyclient.Delete(r.Context(), h.Client, key); deletion != nil {
		h.logFailure(r, errors.Join(err, deletion))
		return unavailable("The Kubernetes API did not confirm the creation of the key, and deleting it failed. No client has its token: "+
			"deactivate the key with the ID %s, and try again.", key.UID)
	}
	if unknown := (*keyclient.OutcomeUnknownError)(nil); errors.As(err, &unknown) {
		h.logFailure(r, err)
		return notConfirmed
	}
	return h.failed(r, err)
}

// appNameConflict returns the response to a creation whose app name is in use. The holder is nil if this process does not know it.
func (h *Handler) appNameConflict(appName string, holder *entry) *envelope.Response {
	message := fmt.Sprintf("An active key has the app name %q: deactivate that key, or choose another app name.", appName)
	switch {
	case holder == nil:
	case holder.unconfirmed:
		freeAt := inUTC(holder.CreatedAt).Add(keyclient.ConfirmTimeout + cleanupInterval)
		message = fmt.Sprintf("A creation that is not finished holds the app name %q. If it fails, the app name is free at %s at the latest.",
			appName, freeAt.Format(time.RFC3339))
	case !holder.issued:
		message = fmt.Sprintf("A key that is not issued yet has the app name %q: deactivate that key, or choose another app name.", appName)
	}
	if holder != nil {
		message += fmt.Sprintf(" It is the key with the ID %s.", holder.id)
	}
	return envelope.NewError(http.StatusConflict, message)
}

// failed returns the response to a request to the Kubernetes API that has failed.
func (h *Handler) failed(r *request, err error) *envelope.Response {
	if apierrors.IsInvalid(err) || isRefusedByCluster(err) {
		return refusedByCluster(err)
	}
	h.logFailure(r, err)
	var (
		unknown *keyclient.OutcomeUnknownError
		status  apierrors.APIStatus
	)
	switch {
	case errors.As(err, &unknown):
		return outcomeUnknown
	case errors.As(err, &status):
		return refused(status.Status())
	case authn.AccessFor(r.Method) == authn.Read:
		return unreachableForRead
	default:
		return unreachableForWrite
	}
}

var failedWebhook = regexp.MustCompile(`failed calling webhook "([^"]+)"`)

// refused returns the response to a request that the Kubernetes API has refused, which is not the fault of the client.
func refused(status metav1.Status) *envelope.Response {
	webhook := failedWebhook.FindStringSubmatch(status.Message)
	switch {
	case webhook != nil:
		return unavailable("The Kubernetes API could not call the admission webhook %q, and nothing was changed: check that webhook, and "+
			"try again.", webhook[1])
	case status.Code >= http.StatusInternalServerError, status.Code == http.StatusTooManyRequests, status.Code == http.StatusConflict:
		return refusedForNow
	default:
		return kubernetesDenied
	}
}

func (h *Handler) logFailure(r *request, err error) {
	h.Log.Error("Request failed", "route", r.routeName(), "callerID", r.verdict.Key.UID, "err", err)
}

// isRefusedByCluster reports whether a quota, a policy, a webhook or the end of the namespace is the reason of an error. The reason of
// other refusals, such as a missing right, is the configuration of this server.
func isRefusedByCluster(err error) bool {
	return keyclient.IsDenied(err) ||
		(apierrors.IsForbidden(err) && !strings.Contains(err.Error(), "is forbidden: User ")) // the latter is an error of RBAC
}

// hashes appear in the API server's messages about an object, but not in responses.
var hashes = regexp.MustCompile(`sha256:[0-9a-f]+`)

func hideHashes(message string) string { return hashes.ReplaceAllString(message, "(hash)") }

// refusedByCluster returns the response to a key that the API server, or a rule of the cluster, refuses.
func refusedByCluster(err error) *envelope.Response {
	var status apierrors.APIStatus
	errors.As(err, &status)
	details := status.Status().Details
	switch {
	case details != nil && slices.ContainsFunc(details.Causes, isAppName):
		return unprocessable("app_name must be 1 to 255 printable characters of any language, without leading or trailing space.")
	case isRefusedByCluster(err):
		return unprocessable("The cluster refused the request, and nothing was changed: %s", hideHashes(status.Status().Message))
	default:
		return unprocessable("%s", hideHashes(status.Status().Message))
	}
}

func isAppName(cause metav1.StatusCause) bool { return cause.Field == "spec.appName" }

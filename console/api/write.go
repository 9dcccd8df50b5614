// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	// writeTimeout bounds how long a request waits until its change is in effect.
	writeTimeout = 10 * time.Second
	// readTimeout bounds how long a request waits until the Kubernetes API has returned a key.
	readTimeout = 5 * time.Second
	// connectionTimeout bounds the lifetime of the connection of such a request. It leaves time to undo the change and to respond.
	connectionTimeout = 4 * writeTimeout
)

// createdBy is the annotation with the UID of the key that created a key.
const createdBy = "keys.squirrel.dev/created-by"

var (
	notAccepted = unavailable("The key was not accepted within %s, and was deleted. Check that the controller is running, and try again.",
		writeTimeout)
	notDeleted = unavailable("The key was not accepted within %s, and deleting it failed: check the list of keys.", writeTimeout)
	notSeen    = unavailable("The key is deactivated, but this server has not seen that within %s: it may accept the key for a while longer.",
		writeTimeout)
	changeNotSeen = unavailable("The key is changed, but this server has not seen that within %s: it may check the key as before for a while "+
		"longer.", writeTimeout)
	kubernetesFailed = unavailable("The request to the Kubernetes API failed: try again.")
	kubernetesDenied = envelope.NewError(http.StatusInternalServerError,
		"The Kubernetes API denied the request of this server, and nothing was changed: see the log of this server.")

	keyNotFound     = envelope.NewError(http.StatusNotFound, "No key has this ID. An ID is a UUID, as in the list of keys.")
	alreadyInactive = envelope.NewError(http.StatusConflict, "The key is already inactive.")
	cannotChange    = envelope.NewError(http.StatusConflict, "The key has ended, which is final, and cannot be changed: create another key.")
	ownKey          = envelope.NewError(http.StatusConflict,
		"This is the key that authenticates the request: to deactivate it, add force=true to the query.")
	ownKeyLoses = envelope.NewError(http.StatusConflict,
		"This is the key that authenticates the request: to take access or time from it, add force=true to the query.")
)

func unavailable(format string, args ...any) *envelope.Response {
	return envelope.NewError(http.StatusServiceUnavailable, fmt.Sprintf(format, args...)).With("Retry-After", "1")
}

// create creates a key. It responds once this server and the controller accept the key.
func (h *Handler) create(w http.ResponseWriter, r *request) *envelope.Response {
	if _, failure := parseQuery(r.URL.RawQuery); failure != nil {
		return failure
	}
	requested, failure := parseCreateRequest(w, r.Request, time.Now())
	if failure != nil {
		return failure
	}
	// Again: a client can send the body long after the headers, and a key that has ended in between must not create another one.
	if denied := h.authorize(r); denied != nil {
		return denied
	}
	if requested.readAccess && !h.maySetReadAccess(r.verdict.Key) {
		return noReadToGrant
	}
	ctx, cancel := extendDeadlines(w, r)
	defer cancel()
	created, err := keyclient.Create(ctx, h.Client, keyclient.CreateOptions{
		Namespace:   h.Namespace,
		AppName:     requested.appName,
		ReadAccess:  requested.readAccess,
		WriteAccess: requested.writeAccess,
		ExpiresAt:   requested.expiresAt,
		Annotations: map[string]string{createdBy: r.verdict.Key.UID},
	})
	if err != nil {
		return h.createFailed(r, requested, err)
	}
	e := newEntry(created.Key)
	if !h.awaitEvent(ctx, e, true) {
		err := &keyclient.NotAcceptedError{Name: e.Name, Message: "this server has not seen the key", Cause: context.Cause(ctx)}
		return h.createFailed(r, requested, errors.Join(err, keyclient.Delete(ctx, h.Client, created.Key)))
	}
	r.keyID = e.id
	k := r.keyAt(e, time.Now())
	k.Token = created.Token
	return envelope.NewPayload(k)
}

// deactivate deactivates a key. It responds once this server refuses the key.
func (h *Handler) deactivate(w http.ResponseWriter, r *request) *envelope.Response {
	query, failure := parseQuery(r.URL.RawQuery, "force")
	if failure != nil {
		return failure
	}
	found := h.KeyCache.find(r.PathValue("id"))
	if found == nil {
		return keyNotFound
	}
	r.keyID = found.id
	switch {
	case found.validity.Deactivated || found.validity.Ended: // not an expiry by the clock of this process alone
		return alreadyInactive
	case found.id == r.verdict.Key.UID && !query.force:
		return ownKey
	}
	ctx, cancel := extendDeadlines(w, r)
	defer cancel()
	deactivated, err := keyclient.Deactivate(ctx, h.Client, h.Namespace, found.Name, types.UID(found.id))
	switch {
	case errors.Is(err, keyclient.ErrNotFound):
		return keyNotFound
	case errors.Is(err, keyclient.ErrAlreadyInactive):
		return alreadyInactive
	case err != nil:
		return h.failed(r, err)
	}
	e := newEntry(deactivated)
	if !h.awaitEvent(ctx, e, false) {
		return notSeen
	}
	return envelope.NewPayload(r.keyAt(e, time.Now()))
}

// refusal is the reason why a key is not changed.
type refusal struct{ *envelope.Response }

func (r refusal) Error() string { return r.Message }

// update changes the access or the expiry of a key. It responds once this server acts on the change.
func (h *Handler) update(w http.ResponseWriter, r *request) *envelope.Response {
	query, failure := parseQuery(r.URL.RawQuery, "force")
	if failure != nil {
		return failure
	}
	found := h.KeyCache.find(r.PathValue("id"))
	if found == nil {
		return keyNotFound
	}
	r.keyID = found.id
	requested, failure := parseUpdateRequest(w, r.Request, time.Now())
	if failure != nil {
		return failure
	}
	if denied := h.authorize(r); denied != nil { // again, as in create
		return denied
	}
	ctx, cancel := extendDeadlines(w, r)
	defer cancel()
	updated, err := keyclient.Update(ctx, h.Client, h.Namespace, found.Name, types.UID(found.id), func(key *v1alpha1.APIKey) error {
		return h.apply(requested, key, r.verdict.Key, query.force)
	})
	var refused refusal
	switch {
	case errors.As(err, &refused):
		return refused.Response
	case errors.Is(err, keyclient.ErrNotFound):
		return keyNotFound
	case errors.Is(err, keyclient.ErrAlreadyInactive):
		return cannotChange
	case err != nil:
		return h.updateFailed(r, err)
	}
	e := newEntry(updated)
	if !h.awaitGeneration(ctx, e) {
		return changeNotSeen
	}
	return envelope.NewPayload(r.keyAt(e, time.Now()))
}

// apply applies a requested change to a key, or returns a refusal.
func (h *Handler) apply(requested *updateRequest, key *v1alpha1.APIKey, manager *authn.Key, force bool) error {
	before := newEntry(key)
	if requested.readAccess != nil {
		key.Spec.ReadAccess = *requested.readAccess
	}
	if requested.writeAccess != nil {
		key.Spec.WriteAccess = *requested.writeAccess
	}
	if requested.setsExpiry {
		key.Spec.ExpiresAt = requested.expiresAt
	}
	after := newEntry(key)
	grantsRead := after.readAccess && (!before.readAccess || after.validity.ExpiresAt > before.validity.ExpiresAt)
	loses := (before.readAccess && !after.readAccess) || (before.writeAccess && !after.writeAccess) ||
		after.validity.ExpiresAt < before.validity.ExpiresAt
	switch {
	case before.endedAt(time.Now()):
		return refusal{cannotChange}
	case !after.readAccess && !after.writeAccess:
		return refusal{unprocessable("%s", noAccess)}
	case grantsRead && !h.maySetReadAccess(manager):
		return refusal{noReadToExtend}
	case loses && before.id == manager.UID && !force:
		return refusal{ownKeyLoses}
	default:
		return nil
	}
}

// updateFailed returns the response to a failed change.
func (h *Handler) updateFailed(r *request, err error) *envelope.Response {
	if apierrors.IsInvalid(err) {
		return invalid(err)
	}
	return h.failed(r, err)
}

// awaitGeneration waits until this process acts on a change of a key, or on a later one. It returns false when ctx is done first. The
// Keyring has each change before the KeyCache.
func (h *Handler) awaitGeneration(ctx context.Context, e *entry) bool {
	return h.KeyCache.Await(ctx, func() bool {
		cached := h.KeyCache.find(e.id)
		return cached == nil || cached.generation >= e.generation
	}) == nil
}

// extendDeadlines returns a context with the timeout of a write. The deadlines of the connection would end it earlier.
func extendDeadlines(w http.ResponseWriter, r *request) (context.Context, context.CancelFunc) {
	connection, deadline := http.NewResponseController(w), time.Now().Add(connectionTimeout)
	if err := errors.Join(connection.SetReadDeadline(deadline), connection.SetWriteDeadline(deadline)); err != nil {
		panic(err) // not a connection of net/http
	}
	return context.WithTimeout(r.Context(), writeTimeout)
}

// awaitEvent waits until this process lists the key as active or not, and accepts or refuses it. It returns false when ctx is done first.
func (h *Handler) awaitEvent(ctx context.Context, e *entry, active bool) bool {
	return h.KeyCache.Await(ctx, func() bool {
		cached := h.KeyCache.find(e.id)
		return (cached != nil && cached.activeAt(time.Now())) == active && h.Authenticator.Accepts(h.Namespace, e.Name, e.id) == active
	}) == nil
}

// createFailed returns the response to a failed creation.
func (h *Handler) createFailed(r *request, requested *createRequest, err error) *envelope.Response {
	var (
		cleanup  *keyclient.CleanupError
		conflict *apikey.Conflict
		timeout  *keyclient.NotAcceptedError
	)
	switch {
	case errors.As(err, &cleanup):
		h.logFailure(r, err)
		return notDeleted
	case errors.As(err, &conflict) && conflict.Reason == v1alpha1.ReasonAppNameConflict:
		return h.appNameConflict(requested.appName)
	case errors.As(err, &timeout):
		h.logFailure(r, err)
		return notAccepted
	case apierrors.IsInvalid(err):
		return invalid(err)
	default:
		return h.failed(r, err)
	}
}

// appNameConflict returns the response to a creation whose app name is in use. It contains the ID of the key that uses it, if this process
// has seen that key.
func (h *Handler) appNameConflict(appName string) *envelope.Response {
	message := fmt.Sprintf("An active key has the app name %q: deactivate that key, or choose another app name.", appName)
	canonical, now := apikey.CanonicalAppName(appName), time.Now()
	holders, _ := h.KeyCache.list(keyclient.Position{}, 1, func(e *entry) bool {
		return e.activeAt(now) && apikey.CanonicalAppName(e.appName) == canonical
	})
	if len(holders) > 0 {
		message += fmt.Sprintf(" It is the key with the ID %s.", holders[0].id)
	}
	return envelope.NewError(http.StatusConflict, message)
}

// failed returns the response to a request that the Kubernetes API has denied or not answered, which is not the fault of the client.
func (h *Handler) failed(r *request, err error) *envelope.Response {
	h.logFailure(r, err)
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code < http.StatusInternalServerError && !apierrors.IsTooManyRequests(err) {
		return kubernetesDenied
	}
	return kubernetesFailed
}

func (h *Handler) logFailure(r *request, err error) {
	h.Log.Error("Request failed", "route", r.routeName(), "callerID", r.verdict.Key.UID, "err", err)
}

// hashes appear in the API server's messages about an object, but not in responses.
var hashes = regexp.MustCompile(`sha256:[0-9a-f]+`)

// invalid returns the response to a key that the API server, or a policy of the cluster, finds invalid.
func invalid(err error) *envelope.Response {
	var status apierrors.APIStatus
	errors.As(err, &status)
	problem := status.Status().Message
	if details := status.Status().Details; details != nil && slices.ContainsFunc(details.Causes, isAppName) {
		problem = "app_name must be 1 to 255 printable characters of any language, without leading or trailing space."
	}
	return unprocessable("%s", hideHashes(problem))
}

func hideHashes(message string) string { return hashes.ReplaceAllString(message, "(hash)") }

func isAppName(cause metav1.StatusCause) bool { return cause.Field == "spec.appName" }

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
	"k8s.io/apimachinery/pkg/util/wait"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

const (
	// writeTimeout bounds how long a call waits until what it did counts.
	writeTimeout = 10 * time.Second
	// connectionTimeout is how long the connection of such a call lives: as long, and while what was begun is undone and the answer sent.
	connectionTimeout = 4 * writeTimeout
	// settlePoll is how often this process is asked whether it has heard of a change.
	settlePoll = 5 * time.Millisecond
)

// createdBy is the annotation that says which key asked for a key, by its UID.
const createdBy = "keys.squirrel.dev/created-by"

var (
	notAcceptedInTime = unavailable("The key was not accepted within %s, and nothing is left of it. Is the controller running? Try again.",
		writeTimeout)
	notRemoved = unavailable("The key was not accepted within %s, and could not be removed again either: look for it in the list of keys.",
		writeTimeout)
	notHeardInTime = unavailable("The key is deactivated, but this server has not heard so within %s: it may be accepted for a while longer.",
		writeTimeout)
	noAnswer = unavailable("The Kubernetes API did not answer as it should: try again.")
	refused  = envelope.NewError(http.StatusInternalServerError,
		"The Kubernetes API refused what this server asked of it, and nothing was changed. The log of this server says more.")

	noSuchKey       = envelope.NewError(http.StatusNotFound, "There is no key of this id. An id is a UUID, as the list of keys has it.")
	alreadyInactive = envelope.NewError(http.StatusConflict, "The key is already inactive.")
	ownKey          = envelope.NewError(http.StatusConflict,
		"This is the key that the call is made with: add force=true to the query to deactivate it all the same.")
)

func unavailable(format string, args ...any) *envelope.Response {
	return envelope.NewError(http.StatusServiceUnavailable, fmt.Sprintf(format, args...)).With("Retry-After", "1")
}

// create mints a token and creates a key for it. It answers when the key can be used, here and with everybody who has heard of it.
func (a *API) create(w http.ResponseWriter, r *request) *envelope.Response {
	if _, refusal := parseQuery(r.URL.RawQuery); refusal != nil {
		return refusal
	}
	wished, refusal := readWish(w, r.Request, time.Now())
	if refusal != nil {
		return refusal
	}
	// Again, because a client can send the body long after the headers: a key that has ended since then creates no other one.
	if refusal := a.authorize(r); refusal != nil {
		return refusal
	}
	if refusal := a.refuseAccess(r.verdict.Key, wished); refusal != nil {
		return refusal
	}
	ctx, cancel := allowTime(w, r)
	defer cancel()
	created, err := keyclient.Create(ctx, a.Kubernetes, keyclient.CreateOptions{
		Namespace:   a.Namespace,
		AppName:     wished.appName,
		ReadAccess:  wished.readAccess,
		WriteAccess: wished.writeAccess,
		ExpiresAt:   wished.expiresAt,
		Annotations: map[string]string{createdBy: r.verdict.Key.UID},
	})
	if err != nil {
		return a.notCreated(r, wished, err)
	}
	e := newEntry(created.Key)
	if !a.settled(ctx, e, true) {
		late := &keyclient.NotAcceptedError{Name: e.name, Message: "it has not reached this server", Cause: context.Cause(ctx)}
		return a.notCreated(r, wished, errors.Join(late, keyclient.Delete(ctx, a.Kubernetes, created.Key)))
	}
	r.subject = e.id
	shown := e.shownAt(time.Now())
	shown.Token = created.Token
	return envelope.NewPayload(shown)
}

// deactivate ends a key for good. It answers when this process refuses the key.
func (a *API) deactivate(w http.ResponseWriter, r *request) *envelope.Response {
	query, refusal := parseQuery(r.URL.RawQuery, "force")
	if refusal != nil {
		return refusal
	}
	found := a.KeyCache.find(r.id)
	if found == nil {
		return noSuchKey
	}
	r.subject = found.id
	switch {
	case found.validity.Deactivated || found.validity.Ended: // an expiry that is not on record is one by the clock of this process
		return alreadyInactive
	case found.id == r.verdict.Key.UID && !query.force:
		return ownKey
	}
	ctx, cancel := allowTime(w, r)
	defer cancel()
	ended, err := keyclient.Deactivate(ctx, a.Kubernetes, a.Namespace, found.name, types.UID(found.id))
	switch {
	case errors.Is(err, keyclient.ErrNotFound):
		return noSuchKey
	case errors.Is(err, keyclient.ErrAlreadyInactive):
		return alreadyInactive
	case err != nil:
		return a.failed(r, err)
	}
	e := newEntry(ended)
	if !a.settled(ctx, e, false) {
		return notHeardInTime
	}
	return envelope.NewPayload(e.shownAt(time.Now()))
}

// allowTime gives a call time to wait for what it does. The connection's own deadlines would end it.
func allowTime(w http.ResponseWriter, r *request) (context.Context, context.CancelFunc) {
	connection, deadline := http.NewResponseController(w), time.Now().Add(connectionTimeout)
	if err := errors.Join(connection.SetReadDeadline(deadline), connection.SetWriteDeadline(deadline)); err != nil {
		panic(err) // no connection of net/http
	}
	return context.WithTimeout(r.Context(), writeTimeout)
}

// settled waits until this process shows the key, and accepts it, or refuses it.
func (a *API) settled(ctx context.Context, e *entry, active bool) bool {
	return wait.PollUntilContextCancel(ctx, settlePoll, true, func(context.Context) (bool, error) {
		shown := a.KeyCache.find(e.id)
		shownActive := shown != nil && shown.activeAt(time.Now())
		return shownActive == active && a.Authenticator.Accepts(a.Namespace, e.name, e.id) == active, nil
	}) == nil
}

// notCreated returns the answer to a creation that failed.
func (a *API) notCreated(r *request, wished *wish, err error) *envelope.Response {
	var (
		remains *keyclient.CleanupError
		held    *apikey.Conflict
		late    *keyclient.NotAcceptedError
	)
	switch {
	case errors.As(err, &remains):
		a.logFailure(r, err)
		return notRemoved
	case errors.As(err, &held) && held.Reason == v1alpha1.ReasonAppNameConflict:
		return a.appNameHeld(wished.appName)
	case errors.As(err, &late):
		a.logFailure(r, err)
		return notAcceptedInTime
	case apierrors.IsInvalid(err):
		return invalid(err)
	default:
		return a.failed(r, err)
	}
}

// appNameHeld returns the answer to a creation whose app name is in use. It names the id to deactivate, unless this process has not heard
// of that key yet.
func (a *API) appNameHeld(appName string) *envelope.Response {
	message := fmt.Sprintf("An active key has the app name %q: deactivate that key, or choose another app name.", appName)
	if holder := a.KeyCache.holder(appName, time.Now()); holder != nil {
		message += fmt.Sprintf(" It is the key with id %s.", holder.id)
	}
	return envelope.NewError(http.StatusConflict, message)
}

// failed returns the answer to a call that the Kubernetes API did not do, through no fault of whoever calls.
func (a *API) failed(r *request, err error) *envelope.Response {
	a.logFailure(r, err)
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code < http.StatusInternalServerError && !apierrors.IsTooManyRequests(err) {
		return refused
	}
	return noAnswer
}

func (a *API) logFailure(r *request, err error) {
	a.Log.Error("a call failed", "call", r.callName(), "by", r.verdict.Key.UID, "err", err)
}

// hashes are in what the API server says of an object, and nobody's business.
var hashes = regexp.MustCompile(`sha256:[0-9a-f]+`)

// invalid returns the answer to a key that the API server, or a policy of the cluster, finds wrong.
func invalid(err error) *envelope.Response {
	var status apierrors.APIStatus
	errors.As(err, &status)
	problem := status.Status().Message
	if details := status.Status().Details; details != nil && slices.ContainsFunc(details.Causes, isAppName) {
		problem = "app_name must be 1 to 255 printable characters of any language, without leading or trailing space."
	}
	return unprocessable("%s", hashes.ReplaceAllString(problem, "(hash)"))
}

func isAppName(cause metav1.StatusCause) bool { return cause.Field == "spec.appName" }

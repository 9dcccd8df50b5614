// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// create creates a key. It responds once this server and the controller accept the key.
func (h *Handler) create(w http.ResponseWriter, r *request) *envelope.Response {
	requested, failure := parseCreateRequest(w, r.Request, time.Now())
	if failure != nil {
		return failure
	}
	// Again: a client can send the body long after the headers, and a key that has ended in between must not create another one.
	if denied := h.authorize(r); denied != nil {
		return denied
	}
	if requested.readAccess && !h.mayGiveReadAccess(r.verdict.Key) {
		return noReadToGrant
	}
	ctx, cancel := extendDeadlines(w, r)
	defer cancel()
	if conflict := h.checkAppName(ctx, r, requested.appName); conflict != nil {
		return conflict
	}
	if !requested.readAccess && !requested.writeAccess {
		return noAccess
	}
	created, err := keyclient.Create(ctx, h.Client, keyclient.CreateOptions{
		Namespace:   h.Namespace,
		AppName:     requested.appName,
		ReadAccess:  requested.readAccess,
		WriteAccess: requested.writeAccess,
		ExpiresAt:   requested.expiresAt,
		Annotations: map[string]string{createdBy: r.verdict.Key.UID},
		Unconfirmed: true,
	})
	if err != nil {
		return h.createFailed(r, requested, err)
	}
	e := newEntry(created.Key)
	r.keyID = e.id
	if !h.awaitEvent(ctx, e, true) {
		err := &keyclient.NotAcceptedError{Name: e.Name, Message: "this server has not seen the key", Cause: context.Cause(ctx)}
		return h.createFailed(r, requested, errors.Join(err, keyclient.Delete(ctx, h.Client, created.Key)))
	}
	confirmed, err := keyclient.Confirm(ctx, h.Client, created.Key)
	if err != nil {
		return h.confirmFailed(r, created.Key, err)
	}
	k := r.keyAt(newEntry(confirmed), time.Now())
	k.Token = created.Token
	return envelope.NewPayload(k)
}

// checkAppName returns nil if no key holds an app name, or else the response. The controller decides; this check spares the client the
// wait.
func (h *Handler) checkAppName(ctx context.Context, r *request, appName string) *envelope.Response {
	holder := h.KeyCache.holderOf(appName)
	if holder == nil || holder.endedAt(time.Now()) { // the controller is about to record its end
		return nil
	}
	current, err := h.read(ctx, holder)
	switch {
	case errors.Is(err, keyclient.ErrNotFound):
		return nil
	case err != nil:
		return h.failed(r, err)
	case apikey.IsRetired(current): // this process has not seen that yet
		return nil
	default:
		return h.appNameConflict(appName, newEntry(current))
	}
}

// read returns the current state of a key. The error is keyclient.ErrNotFound if it does not exist any more.
func (h *Handler) read(ctx context.Context, e *entry) (*v1alpha1.APIKey, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	key := &v1alpha1.APIKey{}
	err := h.Client.Get(ctx, client.ObjectKey{Namespace: h.Namespace, Name: e.Name}, key)
	if apierrors.IsNotFound(err) || (err == nil && string(key.UID) != e.id) {
		return nil, keyclient.ErrNotFound
	}
	return key, err
}

// findToWrite returns the key that the path of a request names, and whether the request may change the key that authenticates it.
func (h *Handler) findToWrite(r *request) (found *entry, force bool, failure *envelope.Response) {
	query, failure := parseQuery(r.URL.RawQuery, "force")
	if failure != nil {
		return nil, false, failure
	}
	if found = h.KeyCache.find(r.PathValue("id")); found == nil {
		return nil, false, keyNotFound
	}
	r.keyID = found.id
	return found, query.force, nil
}

// deactivate deactivates a key. It responds once this server refuses the key.
func (h *Handler) deactivate(w http.ResponseWriter, r *request) *envelope.Response {
	found, force, failure := h.findToWrite(r)
	if failure != nil {
		return failure
	}
	switch {
	case found.retired(): // not an expiry by the clock of this process alone
		return alreadyInactive
	case found.id == r.verdict.Key.UID && !force:
		return ownKey
	}
	holder := h.KeyCache.holderOf(found.appName)
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
	response := deactivatedKey{apiKey: r.keyAt(e, time.Now())}
	if next := h.KeyCache.holderOf(e.appName); next != nil && holder != nil && holder.id == e.id {
		response.HandedTo = &keyReference{ID: next.id, Name: next.Name}
	}
	return envelope.NewPayload(response)
}

// deactivatedKey is the payload of the response to a deactivation.
type deactivatedKey struct {
	apiKey
	// HandedTo is the key that waited for the app name, and gets it now.
	HandedTo *keyReference `json:"handed_to"`
}

type keyReference struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// refusal is the reason why a key is not changed.
type refusal struct{ *envelope.Response }

func (r refusal) Error() string { return r.Message }

// update changes the access or the expiry of a key. It responds once this server acts on the change.
func (h *Handler) update(w http.ResponseWriter, r *request) *envelope.Response {
	found, force, failure := h.findToWrite(r)
	if failure != nil {
		return failure
	}
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
		return h.apply(requested, key, r.verdict.Key, force)
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
		return h.failed(r, err)
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
		return refusal{noAccess}
	case grantsRead && !h.mayGiveReadAccess(manager):
		return refusal{noReadToExtend}
	case loses && before.id == manager.UID && !force:
		return refusal{ownKeyLoses}
	default:
		return nil
	}
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

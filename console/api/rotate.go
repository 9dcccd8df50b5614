// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/utils/ptr"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// rotatedKey is the payload of the response to a rotation.
type rotatedKey struct {
	apiKey
	// FormerTokenExpiresAt is nil if the former token has ended, or if its end is not known yet.
	FormerTokenExpiresAt *time.Time `json:"former_token_expires_at"`
	// HandedTo is nil if the response has the token.
	HandedTo *secretEntry `json:"handed_to,omitempty"`
}

// secretEntry is the place of a token in a Secret.
type secretEntry struct {
	SecretName string `json:"secret_name"`
	Key        string `json:"key"`
}

// rotate rotates the token of a key. An imported key gets a token from this server, and any other key from the controller.
func (h *Handler) rotate(w http.ResponseWriter, r *request) *envelope.Response {
	found, force, failure := h.findToWrite(r)
	if failure != nil {
		return failure
	}
	overlap, failure := parseRotateRequest(w, r.Request)
	if failure != nil {
		return failure
	}
	if denied := h.authorize(r); denied != nil { // again, as in create
		return denied
	}
	ctx, cancel := extendDeadlines(w, r)
	defer cancel()
	key, err := h.read(ctx, found)
	if err != nil {
		return h.rotateFailed(r, err)
	}
	if refused := h.refuseRotation(key, r.verdict.Key, overlap, force); refused != nil {
		return refused
	}
	options := keyclient.RotateOptions{Overlap: overlap, Now: h.APIServerTime}
	if key.Spec.TokenHash != "" {
		return h.rotateImported(ctx, r, key, options)
	}
	return h.rotateMinted(ctx, r, key, options)
}

// refuseRotation returns nil if a manager may rotate the token of a key with this overlap, which is nil for that of the key. Otherwise it
// returns the response.
func (h *Handler) refuseRotation(key *v1alpha1.APIKey, manager *authn.Key, overlap *time.Duration, force bool) *envelope.Response {
	e := newEntry(key)
	declaredBy := keyclient.HashDeclaredBy(key)
	switch {
	case e.endedAt(time.Now()):
		return cannotChange
	case e.readAccess && !h.mayGiveReadAccess(manager):
		return noReadToRotate
	case force:
		return nil
	case declaredBy != "":
		return envelope.NewError(http.StatusConflict, fmt.Sprintf("%s would set the former token back: replace spec.tokenHash in the manifest "+
			"of the key, or add force=true to the query.", declaredBy))
	case e.id == manager.UID && ptr.Deref(overlap, apikey.OverlapOf(key)) == 0:
		return ownTokenEnds
	default:
		return nil
	}
}

// rotateImported rotates the token of an imported key. The response has the new token. It comes once this server accepts that.
func (h *Handler) rotateImported(
	ctx context.Context, r *request, key *v1alpha1.APIKey, options keyclient.RotateOptions,
) *envelope.Response {
	rotated, err := keyclient.Rotate(ctx, h.Client, key, options)
	if err != nil {
		return h.rotateFailed(r, err)
	}
	// Without an error: if this server is late, the token is accepted elsewhere all the same, and nothing but the response has it.
	_ = h.KeyCache.Await(ctx, func() bool { return h.acceptsToken(rotated.Token) })
	response := rotatedKey{apiKey: r.keyAt(newEntry(rotated.Key), time.Now()), FormerTokenExpiresAt: untilInUTC(rotated)}
	response.Token = rotated.Token
	return envelope.NewPayload(response)
}

// untilInUTC returns the end of the former token after a rotation, or nil.
func untilInUTC(rotated *keyclient.RotateResult) *time.Time {
	if rotated.Until == nil {
		return nil
	}
	return new(rotated.Until.UTC())
}

// acceptsToken reports whether this server accepts a token.
func (h *Handler) acceptsToken(token string) bool {
	credential := authn.ExtractCredential([]string{token}, nil)
	return h.Authenticator.Decide(authn.Request{Namespace: h.Namespace, Credential: credential}).Decision == authn.Granted
}

// rotateMinted lets the controller rotate the token of a key. The response comes when the controller has handed over the new token, or at
// the end of ctx: the controller then does so later.
func (h *Handler) rotateMinted(
	ctx context.Context, r *request, key *v1alpha1.APIKey, options keyclient.RotateOptions,
) *envelope.Response {
	payload := rotatedKey{HandedTo: &secretEntry{SecretName: apikey.SecretName(key), Key: apikey.SecretKey(key)}}
	var e *entry
	rotated, err := keyclient.Rotate(ctx, h.Client, key, options)
	switch {
	case err == nil:
		e = newEntry(rotated.Key)
		h.awaitGeneration(ctx, e)
		payload.FormerTokenExpiresAt = untilInUTC(rotated)
	case errors.As(err, new(*keyclient.NotRotatedError)), errors.As(err, new(*apikey.Conflict)):
		if e = h.KeyCache.find(string(key.UID)); e == nil {
			return keyNotFound
		}
	default:
		return h.rotateFailed(r, err)
	}
	payload.apiKey = r.keyAt(e, time.Now())
	response := envelope.NewPayload(payload)
	response.Status = http.StatusAccepted
	return response
}

// rotateFailed returns the response to a failed rotation.
func (h *Handler) rotateFailed(r *request, err error) *envelope.Response {
	var (
		conflict *apikey.Conflict
		timeout  *keyclient.NotRotatedError
	)
	switch {
	case errors.Is(err, keyclient.ErrNotFound):
		return keyNotFound
	case errors.Is(err, keyclient.ErrAlreadyInactive), errors.As(err, new(*keyclient.EndedError)):
		return cannotChange
	case errors.Is(err, keyclient.ErrNotIssued):
		return notIssued
	case errors.Is(err, keyclient.ErrBootstrapKey):
		return bootstrapKeyRotates
	case errors.As(err, new(*keyclient.RotatingError)):
		return alreadyRotating
	case errors.As(err, new(*keyclient.LostTokenError)):
		h.logFailure(r, err)
		return tokenLost
	case errors.As(err, &conflict):
		return envelope.NewError(http.StatusConflict, "The token was not rotated: "+hideHashes(conflict.Message))
	case errors.As(err, &timeout):
		h.logFailure(r, err)
		return unavailable("The new token was not accepted within %s, and the former one stays (status: %s). Check that the controller is "+
			"running, and try again.", writeTimeout, hideHashes(timeout.Message))
	default:
		return h.failed(r, err)
	}
}

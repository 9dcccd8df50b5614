// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	_ "embed" // for openapi.json
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// describe returns the version of the program, the namespace of the keys, where the keys are accepted, and the paths to start from.
func (h *Handler) describe(http.ResponseWriter, *request) *envelope.Response {
	return envelope.NewPayload(map[string]any{
		"name":        "apikey-operator",
		"version":     h.Version,
		"namespace":   h.Namespace,
		"service_url": nullable(h.ServiceURL),
		"health":      bases[0] + "/health",
		"openapi":     bases[0] + "/openapi.json",
		"api_keys":    bases[0] + "/api-keys",
	})
}

// health reports whether the API can serve requests. Only the readiness probe of the process returns the reason, because all clients may
// read the health.
func (h *Handler) health(http.ResponseWriter, *request) *envelope.Response {
	if h.Ready() != nil {
		return h.denials.For(authn.Verdict{Decision: authn.Unavailable})
	}
	return envelope.NewPayload(map[string]string{"status": "healthy"})
}

//go:embed openapi.json
var openAPIDocument []byte

// openAPIResponse has no envelope, so that tools for OpenAPI can read it.
var openAPIResponse = envelope.NewResponse(http.StatusOK, json.RawMessage(openAPIDocument))

func (h *Handler) openAPI(http.ResponseWriter, *request) *envelope.Response { return openAPIResponse }

func (h *Handler) list(_ http.ResponseWriter, r *request) *envelope.Response {
	query, failure := parseQuery(r.URL.RawQuery, "active_only", "unused_for", "expires_within", "limit", "continue")
	if failure != nil {
		return failure
	}
	now := time.Now()
	found, more := h.KeyCache.list(query.after, query.limit, query.filter(now))
	response := envelope.NewList(func(yield func(apiKey) bool) {
		for _, e := range found {
			if !yield(r.keyAt(e, now)) {
				return
			}
		}
	})
	if more {
		response.With("Link", query.next(found[len(found)-1].Position))
	}
	return response
}

func (h *Handler) count(_ http.ResponseWriter, r *request) *envelope.Response {
	query, failure := parseQuery(r.URL.RawQuery, "active_only", "unused_for", "expires_within")
	if failure != nil {
		return failure
	}
	found, _ := h.KeyCache.list(query.after, query.limit, query.filter(time.Now()))
	return envelope.NewPayload(len(found))
}

// keyDetails is a key with the parts that lists leave out.
type keyDetails struct {
	apiKey
	Conditions     []keyCondition `json:"conditions"`
	Imported       bool           `json:"imported"`
	Tokens         []keyToken     `json:"tokens"`
	Secret         *keySecret     `json:"secret"`
	SecretName     *string        `json:"secret_name"`
	DeactivatedAt  *time.Time     `json:"deactivated_at"`
	CreatedBy      *string        `json:"created_by"`
	ManagedBy      *string        `json:"managed_by"`
	HashDeclaredBy *string        `json:"hash_declared_by"`
	Manifest       string         `json:"manifest"`
}

type keyCondition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
	LastTransitionTime time.Time `json:"last_transition_time"`
}

// keyToken is a token that was handed over and is still accepted. ExpiresAt is the end of the overlap, if another token superseded it.
type keyToken struct {
	Hint       *string    `json:"hint"`
	IssuedAt   time.Time  `json:"issued_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

// keySecret is the declaration of the one-time Secret.
type keySecret struct {
	Name *string `json:"name"`
	Key  string  `json:"key"`
	TTL  *string `json:"ttl"`
}

// get returns a key with its details, which it reads from the Kubernetes API.
func (h *Handler) get(_ http.ResponseWriter, r *request) *envelope.Response {
	found := h.KeyCache.find(r.PathValue("id"))
	if found == nil {
		return keyNotFound
	}
	key, err := h.read(r.Context(), found)
	switch {
	case errors.Is(err, keyclient.ErrNotFound):
		return keyNotFound
	case err != nil:
		return h.failed(r, err)
	}
	return envelope.NewPayload(r.detailsOf(key))
}

func (r *request) detailsOf(key *v1alpha1.APIKey) *keyDetails {
	now := time.Now()
	d := &keyDetails{
		apiKey:         r.keyAt(newEntry(key), now),
		Conditions:     make([]keyCondition, len(key.Status.Conditions)),
		Imported:       key.Spec.TokenHash != "",
		Tokens:         tokensAt(key, now),
		SecretName:     nullable(key.Status.SecretName),
		CreatedBy:      nullable(key.Annotations[createdBy]),
		ManagedBy:      nullable(keyclient.ManagedBy(key)),
		HashDeclaredBy: nullable(keyclient.HashDeclaredBy(key)),
		Manifest:       manifestOf(key),
	}
	for i, c := range key.Status.Conditions {
		d.Conditions[i] = keyCondition{c.Type, string(c.Status), c.Reason, hideHashes(c.Message), c.LastTransitionTime.UTC()}
	}
	if secret := key.Spec.Secret; secret != nil {
		d.Secret = &keySecret{Name: nullable(secret.Name), Key: secret.Key}
		if secret.TTL != nil {
			d.Secret.TTL = new(secret.TTL.Duration.String())
		}
	}
	if ended := key.Status.DeactivatedAt; ended != nil {
		d.DeactivatedAt = new(ended.UTC())
	}
	return d
}

// tokensAt returns the tokens of a key that are accepted at the instant now, the newest one first. It leaves out a token that a rotation is
// handing over: no client has it yet.
func tokensAt(key *v1alpha1.APIKey, now time.Time) []keyToken {
	tokens := []keyToken{}
	if !keyclient.IsActive(key, now) {
		return tokens
	}
	newest, claim := apikey.NewestToken(key), apikey.ClaimOf(key)
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		isHandedOver := record.NotBefore != nil && (record != claim || record == newest)
		if !isHandedOver || apikey.HasEnded(record, now) {
			continue
		}
		accepted := keyToken{Hint: nullable(record.Hint), IssuedAt: record.NotBefore.UTC()}
		if record.NotAfter != nil {
			accepted.ExpiresAt = new(record.NotAfter.UTC())
		}
		if record.LastUsedAt != nil {
			accepted.LastUsedAt = new(record.LastUsedAt.UTC())
		}
		tokens = append(tokens, accepted)
	}
	return tokens
}

// callerKey is the key that authenticates a request, and what it may do here.
type callerKey struct {
	apiKey
	Namespace     string  `json:"namespace"`
	MayList       bool    `json:"may_list"`
	MayManage     bool    `json:"may_manage"`
	ManageProblem *string `json:"manage_problem"`
}

// self returns the key that authenticates the request.
func (h *Handler) self(_ http.ResponseWriter, r *request) *envelope.Response {
	found := h.KeyCache.find(r.verdict.Key.UID)
	if found == nil { // the key was deleted after the check
		return h.denials.For(authn.Verdict{Decision: authn.Unauthenticated})
	}
	k := callerKey{apiKey: r.keyAt(found, time.Now()), Namespace: h.Namespace, MayList: r.verdict.Key.Access&authn.Read != 0}
	if denied := h.denyManagement(r.verdict.Key); denied != nil {
		k.ManageProblem = &denied.Message
	} else {
		k.MayManage = true
	}
	return envelope.NewPayload(k)
}

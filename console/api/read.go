// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	_ "embed" // for openapi.json
	"encoding/json"
	"net/http"
	"time"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// apiKey is a key in a response. Times are in UTC and whole seconds.
type apiKey struct {
	ID      string `json:"id"`
	AppName string `json:"app_name"`
	// Token is set in the response to a creation only.
	Token       string     `json:"token,omitempty"`
	ReadAccess  bool       `json:"read_access"`
	WriteAccess bool       `json:"write_access"`
	IsActive    bool       `json:"is_active"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	ExpiresAt   *time.Time `json:"expires_at"`
}

func (e *entry) apiKeyAt(now time.Time) apiKey {
	k := e.apiKey
	k.IsActive = e.activeAt(now)
	return k
}

// describe returns the version of the program and the paths to start from.
func (h *Handler) describe(http.ResponseWriter, *request) *envelope.Response {
	return envelope.NewPayload(map[string]string{
		"name":     "apikey-operator",
		"version":  h.Version,
		"health":   bases[0] + "/health",
		"openapi":  bases[0] + "/openapi.json",
		"api_keys": bases[0] + "/api-keys",
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
	query, failure := parseQuery(r.URL.RawQuery, "active_only", "limit", "continue")
	if failure != nil {
		return failure
	}
	now := time.Now()
	found, more := h.KeyCache.list(query.after, query.limit, query.filter(now))
	response := envelope.NewList(func(yield func(apiKey) bool) {
		for _, e := range found {
			if !yield(e.apiKeyAt(now)) {
				return
			}
		}
	})
	if more {
		response.With("Link", query.next(found[len(found)-1].position()))
	}
	return response
}

func (h *Handler) count(_ http.ResponseWriter, r *request) *envelope.Response {
	query, failure := parseQuery(r.URL.RawQuery, "active_only")
	if failure != nil {
		return failure
	}
	found, _ := h.KeyCache.list(query.after, query.limit, query.filter(time.Now()))
	return envelope.NewPayload(len(found))
}

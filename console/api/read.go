// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"time"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// apiKey is a key as answers show it. Times are RFC 3339, in UTC and whole seconds.
type apiKey struct {
	ID      string `json:"id"`
	AppName string `json:"app_name"`
	// Token is there in the answer to a creation, and in no other.
	Token       string     `json:"token,omitempty"`
	ReadAccess  bool       `json:"read_access"`
	WriteAccess bool       `json:"write_access"`
	IsActive    bool       `json:"is_active"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	ExpiresAt   *time.Time `json:"expires_at"`
}

func (e *entry) shownAt(now time.Time) apiKey {
	shown := apiKey{
		ID:          e.id,
		AppName:     e.appName,
		ReadAccess:  e.readAccess,
		WriteAccess: e.writeAccess,
		IsActive:    e.activeAt(now),
		CreatedAt:   time.Unix(e.createdAt, 0).UTC(),
		UpdatedAt:   e.updatedAt.UTC(),
	}
	if e.expiresAt != nil {
		shown.ExpiresAt = new(e.expiresAt.UTC())
	}
	return shown
}

// describe says what this is and where to go on.
func (a *API) describe(http.ResponseWriter, *request) *envelope.Response {
	return envelope.NewPayload(map[string]string{
		"name":     "apikey-operator",
		"version":  a.Version,
		"health":   bases[0] + "/health",
		"openapi":  bases[0] + "/openapi.json",
		"api_keys": bases[0] + "/api-keys",
	})
}

// health says whether calls can be answered. Why not is for the process's own readiness to say, to those who run it.
func (a *API) health(http.ResponseWriter, *request) *envelope.Response {
	if a.Ready() != nil {
		return a.denials.For(authn.Verdict{Decision: authn.Unavailable})
	}
	return envelope.NewPayload(map[string]string{"status": "healthy"})
}

func (a *API) list(_ http.ResponseWriter, r *request) *envelope.Response {
	query, refusal := parseQuery(r.URL.RawQuery, "active_only", "limit", "continue")
	if refusal != nil {
		return refusal
	}
	now := time.Now()
	found, more := a.KeyCache.list(query.after, query.limit, query.filter(now))
	answer := envelope.NewList(func(yield func(apiKey) bool) {
		for _, e := range found {
			if !yield(e.shownAt(now)) {
				return
			}
		}
	})
	if more {
		answer.With("Link", query.next(found[len(found)-1].position))
	}
	return answer
}

func (a *API) count(_ http.ResponseWriter, r *request) *envelope.Response {
	query, refusal := parseQuery(r.URL.RawQuery, "active_only")
	if refusal != nil {
		return refusal
	}
	return envelope.NewPayload(a.KeyCache.count(query.filter(time.Now())))
}

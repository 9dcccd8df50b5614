// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package denial has the HTTP responses to all verdicts but Granted. The gateway protocols and the console send the same ones.
package denial

import (
	"net/http"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const challenge = `Bearer realm="apikey-operator"`

// Responses are the responses to all verdicts but Granted.
type Responses struct {
	unauthenticated *envelope.Response
	noReadAccess    *envelope.Response
	noWriteAccess   *envelope.Response
	unavailable     *envelope.Response
}

// NewResponses returns the responses. A valid key without the required access gets insufficientAccessStatus: 401, or 403 (RFC 6750,
// section 3.1).
func NewResponses(insufficientAccessStatus int) *Responses {
	insufficient := challenge
	if insufficientAccessStatus == http.StatusForbidden {
		insufficient += `, error="insufficient_scope"`
	}
	return &Responses{
		unauthenticated: envelope.NewError(http.StatusUnauthorized,
			"A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.").
			With("Www-Authenticate", challenge),
		noReadAccess: envelope.NewError(insufficientAccessStatus, "API key does not have read access").
			With("Www-Authenticate", insufficient),
		noWriteAccess: envelope.NewError(insufficientAccessStatus, "API key does not have write access").
			With("Www-Authenticate", insufficient),
		unavailable: envelope.NewError(http.StatusServiceUnavailable, "API keys cannot be checked at the moment: try again.").
			With("Retry-After", "1"),
	}
}

// For returns the response to a verdict that is not Granted.
func (r *Responses) For(verdict authn.Verdict) *envelope.Response {
	switch {
	case verdict.Decision == authn.Unauthenticated:
		return r.unauthenticated
	case verdict.Decision == authn.Forbidden && verdict.Reason == authn.ReasonNoReadAccess:
		return r.noReadAccess
	case verdict.Decision == authn.Forbidden:
		return r.noWriteAccess
	default:
		return r.unavailable
	}
}

// All returns every response that For may return.
func (r *Responses) All() []*envelope.Response {
	return []*envelope.Response{r.unauthenticated, r.noReadAccess, r.noWriteAccess, r.unavailable}
}

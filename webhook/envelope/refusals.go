// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"net/http"

	"squirrel.dev/apikey-operator/webhook/authn"
)

const challenge = `Bearer realm="apikey-operator"`

// Refusals are the answers to all verdicts but Granted, the same at every endpoint.
type Refusals struct {
	unauthenticated *Answer
	noReadAccess    *Answer
	noWriteAccess   *Answer
	unavailable     *Answer
}

// NewRefusals returns the refusals. A good key that lacks the right is answered with insufficientAccessStatus: 401, or 403 (RFC 6750,
// section 3.1).
func NewRefusals(insufficientAccessStatus int) *Refusals {
	insufficient := challenge
	if insufficientAccessStatus == http.StatusForbidden {
		insufficient += `, error="insufficient_scope"`
	}
	return &Refusals{
		unauthenticated: NewError(http.StatusUnauthorized,
			"A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.").
			With("Www-Authenticate", challenge),
		noReadAccess: NewError(insufficientAccessStatus, "API key does not have read access").
			With("Www-Authenticate", insufficient),
		noWriteAccess: NewError(insufficientAccessStatus, "API key does not have write access").
			With("Www-Authenticate", insufficient),
		unavailable: NewError(http.StatusServiceUnavailable, "API keys cannot be checked at the moment: try again.").
			With("Retry-After", "1"),
	}
}

// To returns the answer to a verdict that is not Granted.
func (r *Refusals) To(verdict authn.Verdict) *Answer {
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

// All returns every answer that To may return.
func (r *Refusals) All() []*Answer {
	return []*Answer{r.unauthenticated, r.noReadAccess, r.noWriteAccess, r.unavailable}
}

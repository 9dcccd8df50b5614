// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package denial_test

import (
	"testing"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/authn/denial"
)

func TestFor_ReturnsTheResponseToEachVerdict(t *testing.T) {
	const (
		required  = "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer."
		challenge = `Bearer realm="apikey-operator"`
	)
	cases := []struct {
		verdict             authn.Verdict
		insufficient        int
		status              int
		message             string
		header, headerValue string
	}{
		{authn.Verdict{Decision: authn.Unauthenticated}, 401, 401, required, "Www-Authenticate", challenge},
		{authn.Verdict{Decision: authn.Unauthenticated}, 403, 401, required, "Www-Authenticate", challenge},
		{authn.Verdict{Decision: authn.Forbidden, Reason: authn.ReasonNoReadAccess}, 401,
			401, "API key does not have read access", "Www-Authenticate", challenge},
		{authn.Verdict{Decision: authn.Forbidden, Reason: authn.ReasonNoWriteAccess}, 403,
			403, "API key does not have write access", "Www-Authenticate", challenge + `, error="insufficient_scope"`},
		{authn.Verdict{Decision: authn.Unavailable}, 401, 503, "API keys cannot be checked at the moment: try again.", "Retry-After", "1"},
		{authn.Verdict{}, 401, 503, "API keys cannot be checked at the moment: try again.", "Retry-After", "1"},
	}
	for _, c := range cases {
		got := denial.NewResponses(c.insufficient).For(c.verdict)
		want := envelope.NewError(c.status, c.message)
		if got.Status != want.Status || string(got.Body) != string(want.Body) || got.Header.Get(c.header) != c.headerValue {
			t.Errorf("the response to %v with %d is %d %v %s", c.verdict, c.insufficient, got.Status, got.Header, got.Body)
		}
	}
}

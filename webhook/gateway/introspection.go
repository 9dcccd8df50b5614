// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/authn/denial"
)

// introspection is OAuth 2.0 Token Introspection (RFC 7662): a resource server asks about the token that it was sent, and presents a
// key of its own, which must have read access in the same namespace.
var introspection = protocol{
	name:      "introspect",
	path:      "/auth/introspect/{namespace}",
	readsBody: true,
	answer:    introspect,
}

var (
	formBody = newMediaType("application/x-www-form-urlencoded")

	inURL = newMisuse(http.StatusBadRequest,
		"This endpoint takes no query: the token must be in the body, since URLs end up in logs (RFC 7662, section 2.1).")
	notForm = newMisuse(http.StatusBadRequest,
		"The body is no form: names and values must be percent-encoded as application/x-www-form-urlencoded is.")
	noOneToken = newMisuse(http.StatusBadRequest, "The form must have the parameter token, with a value and once.")

	// inactive tells nothing of why (RFC 7662, section 2.2).
	inactive = envelope.NewResponse(http.StatusOK, struct {
		Active bool `json:"active"`
	}{})
)

// active is the answer about a good token (RFC 7662, section 2.2).
type active struct {
	Active bool `json:"active"`
	// Scope is what the key may do: "read", "write" or "read write".
	Scope string `json:"scope"`
	// ClientID is the app name as in X-Auth-App, since a client identifier has no other characters than visible ASCII and the space
	// (RFC 6749, appendix A.1).
	ClientID  string `json:"client_id"`
	TokenType string `json:"token_type"`
	// ExpiresAt is in seconds since 1970, and left out of a token without end.
	ExpiresAt int64 `json:"exp,omitempty"`
	IssuedAt  int64 `json:"iat"`
	// Subject is the UID of the APIKey object, which no other ever has: a name could be given to another key later.
	Subject string `json:"sub"`
	// Issuer names the namespace too, so that a resource server can check that it asked in the right one.
	Issuer string `json:"iss"`
}

// introspect decides about the caller first, and then about the token. It returns the last decision that it made.
func introspect(d *desk, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
	token, wrong := tokenIn(w, r)
	if wrong != nil {
		return d.refuse(w, wrong)
	}
	caller := d.decide(r.Context(), authn.Request{
		Namespace:  namespace,
		Credential: authn.ExtractCallerCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
		Access:     authn.Read,
	})
	if caller.Decision != authn.Granted {
		refusalOfCaller(d.denials, caller).Write(w)
		return caller.Decision
	}
	verdict := d.decide(r.Context(), authn.Request{Namespace: namespace, Credential: authn.NewCredential(token)})
	switch verdict.Decision {
	case authn.Granted:
		envelope.NewResponse(http.StatusOK, activeAs(verdict.Key)).Write(w)
	case authn.Unauthenticated:
		inactive.Write(w)
	default:
		d.denials.For(verdict).Write(w)
	}
	return verdict.Decision
}

// tokenIn returns the token of the form in the body.
func tokenIn(w http.ResponseWriter, r *http.Request) (string, *misuse) {
	body, wrong := formBody.readBody(w, r)
	switch {
	case wrong != nil:
		return "", wrong
	case r.URL.RawQuery != "":
		return "", inURL
	default:
		return tokenOf(string(body))
	}
}

// tokenOf returns the token of a form. All other parameters are left unread, the hint of the token's type among them.
func tokenOf(form string) (string, *misuse) {
	parameters, err := url.ParseQuery(form)
	if err != nil {
		return "", notForm
	}
	if tokens := parameters["token"]; len(tokens) == 1 && tokens[0] != "" {
		return tokens[0], nil
	}
	return "", noOneToken
}

// refusalOfCaller returns the refusal that all endpoints have, and says that Basic would do too.
func refusalOfCaller(denials *denial.Responses, caller authn.Verdict) *envelope.Response {
	refusal := *denials.For(caller)
	if refusal.Status == http.StatusUnauthorized {
		refusal.Header = refusal.Header.Clone()
		refusal.Header.Add("Www-Authenticate", `Basic realm="apikey-operator"`)
	}
	return &refusal
}

func activeAs(key *authn.Key) active {
	a := active{
		Active:    true,
		Scope:     strings.ReplaceAll(key.Access.String(), ",", " "),
		ClientID:  percentEncode(key.AppName),
		TokenType: "Bearer",
		IssuedAt:  key.IssuedAt,
		Subject:   key.UID,
		Issuer:    v1alpha1.GroupVersion.Group + "/" + key.Namespace,
	}
	if end := key.ExpiresAt(); end != apikey.NeverExpires {
		a.ExpiresAt = end
	}
	return a
}

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

// introspection is OAuth 2.0 Token Introspection (RFC 7662). A resource server sends the token that it received, and authenticates with
// its own key, which needs read access in the same namespace.
var introspection = protocol{
	name:      "introspect",
	path:      "/auth/introspect/{namespace}",
	readsBody: true,
	serve:     introspect,
}

var (
	formBody = newMediaType("application/x-www-form-urlencoded")

	hasQuery = newConfigError(http.StatusBadRequest,
		"The URL has a query: send the token in the body, because URLs are logged (RFC 7662, section 2.1).")
	notForm = newConfigError(http.StatusBadRequest,
		"The request body is not a form: percent-encode names and values as application/x-www-form-urlencoded.")
	notOneToken = newConfigError(http.StatusBadRequest, "The form does not have exactly one token: send one parameter token with a value.")

	// inactive gives no reason (RFC 7662, section 2.2).
	inactive = envelope.NewResponse(http.StatusOK, struct {
		Active bool `json:"active"`
	}{})
)

// active is the response for a valid token (RFC 7662, section 2.2).
type active struct {
	Active bool `json:"active"`
	// Scope is the access of the key: "read", "write" or "read write".
	Scope string `json:"scope"`
	// ClientID is the app name as in X-Auth-App: a client identifier has only visible ASCII characters and spaces (RFC 6749, appendix
	// A.1).
	ClientID  string `json:"client_id"`
	TokenType string `json:"token_type"`
	// ExpiresAt is in seconds since 1970. It is left out if the token does not expire.
	ExpiresAt int64 `json:"exp,omitempty"`
	IssuedAt  int64 `json:"iat"`
	// Subject is the UID of the APIKey object, which is unique. A later key could have the same name.
	Subject string `json:"sub"`
	// Issuer includes the namespace, so that a resource server can check that it used the right one.
	Issuer string `json:"iss"`
}

// introspect checks the caller first, then the token. It returns the last decision.
func introspect(c *checker, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
	token, err := readToken(w, r)
	if err != nil {
		return c.reject(w, err)
	}
	caller := c.check(r.Context(), authn.Request{
		Namespace:  namespace,
		Credential: authn.ExtractCallerCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
		Access:     authn.Read,
	})
	if caller.Decision != authn.Granted {
		callerDenial(c.denials, caller).Write(w)
		return caller.Decision
	}
	verdict := c.check(r.Context(), authn.Request{Namespace: namespace, Credential: authn.NewCredential(token)})
	switch verdict.Decision {
	case authn.Granted:
		envelope.NewResponse(http.StatusOK, newActive(verdict.Key)).Write(w)
	case authn.Unauthenticated:
		inactive.Write(w)
	default:
		c.denials.For(verdict).Write(w)
	}
	return verdict.Decision
}

// readToken returns the token of the form in the body.
func readToken(w http.ResponseWriter, r *http.Request) (string, *configError) {
	body, err := formBody.readBody(w, r)
	switch {
	case err != nil:
		return "", err
	case r.URL.RawQuery != "":
		return "", hasQuery
	default:
		return tokenOf(string(body))
	}
}

// tokenOf returns the token of a form. It ignores all other parameters, token_type_hint among them.
func tokenOf(form string) (string, *configError) {
	parameters, err := url.ParseQuery(form)
	if err != nil {
		return "", notForm
	}
	if tokens := parameters["token"]; len(tokens) == 1 && tokens[0] != "" {
		return tokens[0], nil
	}
	return "", notOneToken
}

// callerDenial returns the common denial. It adds a challenge to a 401, because the caller may also use HTTP Basic.
func callerDenial(denials *denial.Responses, caller authn.Verdict) *envelope.Response {
	response := *denials.For(caller)
	if response.Status == http.StatusUnauthorized {
		response.Header = response.Header.Clone()
		response.Header.Add("Www-Authenticate", `Basic realm="apikey-operator"`)
	}
	return &response
}

func newActive(key *authn.Key) active {
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

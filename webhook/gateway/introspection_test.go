// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// introspect returns a request for a token, with the key of a caller.
func introspect(token, caller string) string {
	return introspectForm("token="+url.QueryEscape(token), "X-API-Key: "+caller)
}

// introspectForm returns a request with this form and these headers.
func introspectForm(form string, headers ...string) string {
	return introspectAt(introspectPath, form, headers...)
}

func introspectAt(target, form string, headers ...string) string {
	return head("POST "+target, append(headers, formType, "Content-Length: "+strconv.Itoa(len(form)))...) + form
}

var (
	inactive     = jsonResponse(`{"active":false}`)
	readerActive = jsonResponse(`{"active":true,"scope":"read","client_id":"Frontend%20App","token_type":"Bearer","iat":1798801200,` +
		`"sub":"reader-uid","iss":"keys.squirrel.dev/shop"}`)
	// The caller is denied, with a challenge for each scheme.
	callerUnauthenticated = unauthenticated.and("Www-Authenticate", `Bearer realm="apikey-operator" | Basic realm="apikey-operator"`)
	callerCannotRead      = noReadAccess.and("Www-Authenticate", `Bearer realm="apikey-operator" | Basic realm="apikey-operator"`)
	notOneToken           = errorResponse(400, "The form does not have exactly one token: send one parameter token with a value.")
	notForm               = errorResponse(400, "The request body is not a form: percent-encode names and values as application/x-www-form-urlencoded.")
)

func TestIntrospection_ReturnsTheKey(t *testing.T) {
	address := setup{}.serve(t)
	for token, want := range map[string]response{
		readToken: readerActive,
		writeToken: jsonResponse(`{"active":true,"scope":"write","client_id":"Gr%C3%B6%C3%9Fe%20%F0%9F%A6%80","token_type":"Bearer","iat":1798801200,` +
			`"sub":"writer-uid","iss":"keys.squirrel.dev/shop"}`),
		bothToken: jsonResponse(`{"active":true,"scope":"read write","client_id":"both","token_type":"Bearer","iat":1798801200,` +
			`"sub":"both-uid","iss":"keys.squirrel.dev/shop"}`),
		endingToken: jsonResponse(`{"active":true,"scope":"read","client_id":"ending","token_type":"Bearer","exp":1798808400,"iat":1798801200,` +
			`"sub":"ending-uid","iss":"keys.squirrel.dev/shop"}`),

		"sq_unknown":             inactive,
		deactivatedToken:         inactive,
		expiredToken:             inactive,
		supersededToken:          inactive,
		unissuedToken:            inactive,
		otherToken:               inactive,
		" ":                      inactive,
		readToken + " ":          inactive,
		readToken + ",x":         inactive,
		"sq_\x00\u00e9":          inactive,
		strings.Repeat("k", 513): inactive,
	} {
		assertResponse(t, send(t, address, introspect(token, readToken)), want)
	}
}

func TestIntrospection_RequiresReadAccessOfTheCaller(t *testing.T) {
	address := setup{}.serve(t)
	basic := func(credentials string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
	}
	cases := []struct {
		name    string
		headers []string
		want    response
	}{
		{"X-API-Key", []string{"X-API-Key: " + readToken}, readerActive},
		{"Bearer", []string{"Authorization: Bearer " + readToken}, readerActive},
		{"the password of Basic", []string{basic("user:" + readToken)}, readerActive},
		{"the password of Basic without user name", []string{basic(":" + readToken)}, readerActive},
		{"a key with read and write access", []string{"X-API-Key: " + bothToken}, readerActive},

		{"none", nil, callerUnauthenticated},
		{"the token to check", []string{"X-Token: " + readToken}, callerUnauthenticated},
		{"an unknown key", []string{"X-API-Key: sq_unknown"}, callerUnauthenticated},
		{"a deactivated key", []string{"Authorization: Bearer " + deactivatedToken}, callerUnauthenticated},
		{"an expired key", []string{basic("user:" + expiredToken)}, callerUnauthenticated},
		{"a key of another namespace", []string{"X-API-Key: " + otherToken}, callerUnauthenticated},
		{"a key with write access", []string{"X-API-Key: " + writeToken}, callerCannotRead},
		{"the key as user name of Basic", []string{basic(readToken + ":")}, callerUnauthenticated},
		{"X-API-Key and Authorization", []string{"X-API-Key: " + readToken, "Authorization: Bearer " + readToken}, callerUnauthenticated},
		{"X-API-Key twice", []string{"X-API-Key: " + readToken, "X-API-Key: " + readToken}, callerUnauthenticated},
		{"Authorization twice", []string{"Authorization: Bearer " + readToken, basic("user:" + readToken)}, callerUnauthenticated},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			assertResponse(t, send(t, address, introspectForm("token=sq_read", c.headers...)), c.want)
			if c.want.Status != 200 { // for any token
				assertResponse(t, send(t, address, introspectForm("token=sq_unknown", c.headers...)), c.want)
			}
		})
	}
	assertResponse(t, send(t, setup{insufficientAccessStatus: 403}.serve(t), introspect(readToken, writeToken)),
		errorResponse(403, "API key does not have read access").and("Www-Authenticate", `Bearer realm="apikey-operator", error="insufficient_scope"`))
}

func TestInvariant7_AFormMustHaveOneToken(t *testing.T) {
	address := setup{}.serve(t)
	for form, want := range map[string]response{
		"token=sq_read": readerActive,
		"token=sq_read&token_type_hint=access_token":                           readerActive,
		"token=sq_read&token_type_hint=refresh_token&token_type_hint=nonsense": readerActive,
		"token_type_hint=&token=sq%5Fread&":                                    readerActive,
		"%74oken=sq_read&Token=sq_both&client_id=a&client_secret=b":            readerActive,
		"token=sq+read":                    inactive,
		"token=%FF%00":                     inactive,
		"":                                 notOneToken,
		"token":                            notOneToken,
		"token=":                           notOneToken,
		"Token=sq_read":                    notOneToken,
		"token_type_hint=sq_read":          notOneToken,
		"token=sq_read&token=":             notOneToken,
		"token=&token=sq_read":             notOneToken,
		"token=sq_read&token=sq_read":      notOneToken,
		"token=sq_unknown&%74oken=sq_read": notOneToken,
		"token=sq_read;token_type_hint=a":  notForm,
		"token=sq_read&a=%":                notForm,
		"token=sq%5":                       notForm,
		"token=sq_read&%zz=a":              notForm,
		`{"token":"sq_read"}`:              notOneToken,
		"token=sq_read" + strings.Repeat("&a", 20000): notForm,
	} {
		assertResponse(t, send(t, address, introspectForm(form, "X-API-Key: "+readToken)), want)
	}
}

func TestInvariant1_AQueryInTheURLIsRejected(t *testing.T) {
	address := setup{}.serve(t)
	want := errorResponse(400, "The URL has a query: send the token in the body, because URLs are logged (RFC 7662, section 2.1).")
	for _, query := range []string{"?token=sq_read", "?a=b", "?%74oken=sq_read", "?;", "?token"} {
		for _, form := range []string{"", "token=sq_read"} {
			assertResponse(t, send(t, address, introspectAt(introspectPath+query, form, "X-API-Key: "+readToken)), want)
		}
	}
	assertResponse(t, send(t, address, introspectAt(introspectPath+"?", "token=sq_read", "X-API-Key: "+readToken)), readerActive)
}

func TestInvariant4_IntrospectionBeforeSyncIsUnavailable(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	assertResponse(t, send(t, address, introspect(readToken, readToken)), unavailable)
	assertResponse(t, send(t, address, introspect("sq_unknown", "sq_unknown")), unavailable)
	assertResponse(t, send(t, address, introspectForm("token=sq_read")), unavailable)
	assertResponse(t, send(t, address, introspectForm("")), notOneToken)
}

func TestInvariant4_KeysThatBecomeStaleBetweenCallerAndTokenAreUnavailable(t *testing.T) {
	var readings atomic.Int32
	address := setup{maxStaleness: authn.MinStaleness, clock: func() time.Time {
		if readings.Add(1) == 1 { // for the caller
			return time.Now()
		}
		return time.Now().Add(time.Hour)
	}}.serve(t)
	assertResponse(t, send(t, address, introspect(readToken, readToken)), unavailable)
	if readings.Load() != 2 {
		t.Errorf("the clock was read %d times: the token was not checked", readings.Load())
	}
}

func TestIntrospection_ServesItsPathAlone(t *testing.T) {
	address := setup{}.serve(t)
	for _, path := range []string{"/auth/introspect", "/auth/introspect/", "/auth/introspect/shop/", "/auth/introspect/shop/x", "/auth/introspect/sh%6fp"} {
		assertResponse(t, send(t, address, introspectAt(path, "token=sq_read", "X-API-Key: "+readToken)),
			wrongPath("/auth/introspect/{namespace}"))
	}
}

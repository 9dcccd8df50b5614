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

// introspect asks about a token, with the key of a caller.
func introspect(token, caller string) string {
	return introspectForm("token="+url.QueryEscape(token), "X-API-Key: "+caller)
}

// introspectForm writes a request with this form and these headers.
func introspectForm(form string, headers ...string) string {
	return introspectAt(introspectPath, form, headers...)
}

func introspectAt(target, form string, headers ...string) string {
	return head("POST "+target, append(headers, formType, "Content-Length: "+strconv.Itoa(len(form)))...) + form
}

var (
	inactive     = jsonAnswer(`{"active":false}`)
	readerActive = jsonAnswer(`{"active":true,"scope":"read","client_id":"Frontend%20App","token_type":"Bearer","iat":1798801200,` +
		`"sub":"reader-uid","iss":"keys.squirrel.dev/shop"}`)
	// The resource server itself is refused, and told of both ways to present its key.
	callerUnauthenticated = unauthenticated.and("Www-Authenticate", `Bearer realm="apikey-operator" | Basic realm="apikey-operator"`)
	callerCannotRead      = noReadAccess.and("Www-Authenticate", `Bearer realm="apikey-operator" | Basic realm="apikey-operator"`)
	noOneToken            = envelope(400, "The form does not have exactly one token: send one parameter token with a value.")
	notForm               = envelope(400, "The request body is not a form: percent-encode names and values as application/x-www-form-urlencoded.")
)

func TestIntrospectionTellsWhoseTokenItIs(t *testing.T) {
	address := setup{}.serve(t)
	for token, want := range map[string]answer{
		readToken: readerActive,
		writeToken: jsonAnswer(`{"active":true,"scope":"write","client_id":"Gr%C3%B6%C3%9Fe%20%F0%9F%A6%80","token_type":"Bearer","iat":1798801200,` +
			`"sub":"writer-uid","iss":"keys.squirrel.dev/shop"}`),
		bothToken: jsonAnswer(`{"active":true,"scope":"read write","client_id":"both","token_type":"Bearer","iat":1798801200,` +
			`"sub":"both-uid","iss":"keys.squirrel.dev/shop"}`),
		endingToken: jsonAnswer(`{"active":true,"scope":"read","client_id":"ending","token_type":"Bearer","exp":1798808400,"iat":1798801200,` +
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
		assertAnswer(t, send(t, address, introspect(token, readToken)), want)
	}
}

func TestIntrospectionNeedsAKeyWithReadAccess(t *testing.T) {
	address := setup{}.serve(t)
	basic := func(credentials string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
	}
	cases := []struct {
		name    string
		headers []string
		want    answer
	}{
		{"X-API-Key", []string{"X-API-Key: " + readToken}, readerActive},
		{"Bearer", []string{"Authorization: Bearer " + readToken}, readerActive},
		{"the password of Basic", []string{basic("anybody:" + readToken)}, readerActive},
		{"the password of Basic without user name", []string{basic(":" + readToken)}, readerActive},
		{"a key that may write, too", []string{"X-API-Key: " + bothToken}, readerActive},

		{"none", nil, callerUnauthenticated},
		{"the token it asks about", []string{"X-Token: " + readToken}, callerUnauthenticated},
		{"an unknown key", []string{"X-API-Key: sq_unknown"}, callerUnauthenticated},
		{"a deactivated key", []string{"Authorization: Bearer " + deactivatedToken}, callerUnauthenticated},
		{"an expired key", []string{basic("anybody:" + expiredToken)}, callerUnauthenticated},
		{"a key of another namespace", []string{"X-API-Key: " + otherToken}, callerUnauthenticated},
		{"a key that may only write", []string{"X-API-Key: " + writeToken}, callerCannotRead},
		{"the key as user name of Basic", []string{basic(readToken + ":")}, callerUnauthenticated},
		{"X-API-Key and Authorization", []string{"X-API-Key: " + readToken, "Authorization: Bearer " + readToken}, callerUnauthenticated},
		{"X-API-Key twice", []string{"X-API-Key: " + readToken, "X-API-Key: " + readToken}, callerUnauthenticated},
		{"Authorization twice", []string{"Authorization: Bearer " + readToken, basic("anybody:" + readToken)}, callerUnauthenticated},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			assertAnswer(t, send(t, address, introspectForm("token=sq_read", c.headers...)), c.want)
			if c.want.Status != 200 { // whatever the token is
				assertAnswer(t, send(t, address, introspectForm("token=sq_unknown", c.headers...)), c.want)
			}
		})
	}
	assertAnswer(t, send(t, setup{insufficientAccessStatus: 403}.serve(t), introspect(readToken, writeToken)),
		envelope(403, "API key does not have read access").and("Www-Authenticate", `Bearer realm="apikey-operator", error="insufficient_scope"`))
}

func TestInvariant7_AFormHasOneToken(t *testing.T) {
	address := setup{}.serve(t)
	for form, want := range map[string]answer{
		"token=sq_read": readerActive,
		"token=sq_read&token_type_hint=access_token":                           readerActive,
		"token=sq_read&token_type_hint=refresh_token&token_type_hint=nonsense": readerActive,
		"token_type_hint=&token=sq%5Fread&":                                    readerActive,
		"%74oken=sq_read&Token=sq_both&client_id=a&client_secret=b":            readerActive,
		"token=sq+read":                    inactive,
		"token=%FF%00":                     inactive,
		"":                                 noOneToken,
		"token":                            noOneToken,
		"token=":                           noOneToken,
		"Token=sq_read":                    noOneToken,
		"token_type_hint=sq_read":          noOneToken,
		"token=sq_read&token=":             noOneToken,
		"token=&token=sq_read":             noOneToken,
		"token=sq_read&token=sq_read":      noOneToken,
		"token=sq_unknown&%74oken=sq_read": noOneToken,
		"token=sq_read;token_type_hint=a":  notForm,
		"token=sq_read&a=%":                notForm,
		"token=sq%5":                       notForm,
		"token=sq_read&%zz=a":              notForm,
		`{"token":"sq_read"}`:              noOneToken,
		"token=sq_read" + strings.Repeat("&a", 20000): notForm,
	} {
		assertAnswer(t, send(t, address, introspectForm(form, "X-API-Key: "+readToken)), want)
	}
}

func TestInvariant1_ATokenInTheURLIsRefused(t *testing.T) {
	address := setup{}.serve(t)
	want := envelope(400, "The URL has a query: send the token in the body, because URLs are logged (RFC 7662, section 2.1).")
	for _, query := range []string{"?token=sq_read", "?a=b", "?%74oken=sq_read", "?;", "?token"} {
		for _, form := range []string{"", "token=sq_read"} {
			assertAnswer(t, send(t, address, introspectAt(introspectPath+query, form, "X-API-Key: "+readToken)), want)
		}
	}
	assertAnswer(t, send(t, address, introspectAt(introspectPath+"?", "token=sq_read", "X-API-Key: "+readToken)), readerActive)
}

func TestInvariant4_IntrospectionBeforeSyncIsUnavailable(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	assertAnswer(t, send(t, address, introspect(readToken, readToken)), unavailable)
	assertAnswer(t, send(t, address, introspect("sq_unknown", "sq_unknown")), unavailable)
	assertAnswer(t, send(t, address, introspectForm("token=sq_read")), unavailable)
	assertAnswer(t, send(t, address, introspectForm("")), noOneToken)
}

func TestInvariant4_KeysThatTurnStaleBetweenCallerAndTokenAreUnavailable(t *testing.T) {
	var readings atomic.Int32
	address := setup{maxStaleness: authn.MinStaleness, clock: func() time.Time {
		if readings.Add(1) == 1 { // for the caller
			return time.Now()
		}
		return time.Now().Add(time.Hour)
	}}.serve(t)
	assertAnswer(t, send(t, address, introspect(readToken, readToken)), unavailable)
	if readings.Load() != 2 {
		t.Errorf("the clock was read %d times: the token was not decided about", readings.Load())
	}
}

func TestIntrospectionIsAskedAtItsPathAlone(t *testing.T) {
	address := setup{}.serve(t)
	for _, path := range []string{"/auth/introspect", "/auth/introspect/", "/auth/introspect/shop/", "/auth/introspect/shop/x", "/auth/introspect/sh%6fp"} {
		assertAnswer(t, send(t, address, introspectAt(path, "token=sq_read", "X-API-Key: "+readToken)),
			wrongPath("/auth/introspect/{namespace}"))
	}
}

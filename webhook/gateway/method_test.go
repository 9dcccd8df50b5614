// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestInvariant7_NoMethodOrTwoMeanNoAccess(t *testing.T) {
	address := setup{}.serve(t)
	for _, unsynced := range []bool{false, true} { // who asks wrongly is told so in any case
		address := address
		if unsynced {
			address = setup{unsynced: true}.serve(t)
		}
		for protocol, header := range methodHeaders {
			for _, headers := range []string{
				"",
				"H:",
				"H:  ",
				"H: GET\nH: GET",
				"H: GET\nH: POST",
				"H: GET\nH:",
				"H: GET, GET",
				"H: GET,",
				"H: G ET",
				"H: GÉT",
				"H: GET/",
				"H: \"GET\"",
				"X-Method: GET",
				"X-HTTP-Method-Override: GET",
				"X_Original_Method: GET\nX_Forwarded_Method: GET\nX_Method: GET",
			} {
				t.Run(protocol+"/"+headers, func(t *testing.T) {
					lines := []string{"X-API-Key: " + bothToken}
					if headers != "" {
						lines = append(lines, strings.Split(strings.ReplaceAll(headers, "H:", header+":"), "\n")...)
					}
					assertAnswer(t, send(t, address, head("GET /auth/"+protocol+"/shop", lines...)), wrongMethods[protocol])
				})
			}
		}
	}
}

// otherMethodHeaders are those by which gateways name the method of a request, in some configuration.
var otherMethodHeaders = []string{
	"Method", "X-Forwarded-Method", "X-Original-Method", "X-Envoy-Original-Method", "X-Auth-Request-Method", "X-Forwarded-Http-Method",
	"X-Forwarded-Verb", "X-Method", "X-Orig-Method", "X-Origin-Method", "X-Original-Http-Method", "X-Original-Request-Method",
	"X-Original-Verb", "X-Real-Method", "X-Request-Method",
}

// spellings are how a header can be written that services, or gateways on the way, may take for one.
func spellings(header string) []string {
	return []string{
		header, strings.ToLower(header), strings.ToUpper(header), strings.ReplaceAll(header, "-", "_"),
		strings.ReplaceAll(strings.ToLower(header), "-", "."), strings.ReplaceAll(strings.ToUpper(header), "-", "~"),
	}
}

func TestInvariant7_EnvoysEndpointRefusesEveryHeaderThatNamesAMethod(t *testing.T) {
	address := setup{}.serve(t)
	for _, header := range otherMethodHeaders {
		for _, spelling := range spellings(header) {
			for _, value := range []string{" GET", " POST", ""} {
				for _, own := range []string{"GET", "POST"} {
					t.Run(own+" "+spelling+":"+value, func(t *testing.T) {
						assertAnswer(t, send(t, address, head(own+" /auth/envoy/shop/", "X-API-Key: "+bothToken, spelling+":"+value)), wrongEnvoyMethod)
					})
				}
			}
		}
		assertAnswer(t, send(t, address, head("GET /auth/envoy/shop/", header+": GET")), wrongEnvoyMethod)
	}
}

// namedCase is a request of this method with a header that names another one, or the same, and the rights that it needs.
type namedCase struct {
	method, value string
	access        authn.Access
}

// A gateway that asks at the wrong endpoint names the method in another header, while a client chooses what is in the right one.
func TestInvariant7_AMethodThatAnotherHeaderNamesNeedsItsRightToo(t *testing.T) {
	asker := newNamingAsker(t)
	for _, c := range []namedCase{
		{"GET", "GET", authn.Read},
		{"GET", "HEAD", authn.Read},
		{"GET", "POST", authn.Read | authn.Write},
		{"GET", "BREW", authn.Read | authn.Write},
		{"GET", "get", authn.Read | authn.Write},
		{"GET", "GET,GET", authn.Read},
		{"GET", "GET, POST", authn.Read | authn.Write},
		{"GET", "GET POST", authn.Read | authn.Write},
		{"GET", "", authn.Read},
		{"POST", "POST", authn.Write},
		{"POST", "DELETE", authn.Write},
		{"POST", "GET", authn.Read | authn.Write},
		{"POST", "", authn.Write},
	} {
		asker.assert(slices.Sorted(maps.Keys(methodHeaders)), "X-Real-Method", c, readToken, writeToken, bothToken)
	}
	for _, header := range otherMethodHeaders {
		for _, spelling := range spellings(header) {
			asker.assert(slices.Sorted(maps.Keys(methodHeaders)), spelling, namedCase{"GET", "POST", authn.Read | authn.Write}, readToken)
		}
	}
}

// Each service that obeys an override understands it in its own way.
func TestInvariant7_AnOverrideOfTheMethodNeedsWriteAccessToo(t *testing.T) {
	asker := newNamingAsker(t)
	for _, c := range []namedCase{
		{"GET", "DELETE", authn.Read | authn.Write},
		{"GET", "delete", authn.Read | authn.Write},
		{"GET", "GET", authn.Read | authn.Write},
		{"GET", "", authn.Read | authn.Write},
		{"GET", "=?utf-8?q?DELETE?=", authn.Read | authn.Write},
		{"OPTIONS", "PATCH", authn.Read | authn.Write},
		{"POST", "DELETE", authn.Write},
		{"POST", "put", authn.Write},
		{"POST", "", authn.Write},
		{"POST", "GET", authn.Read | authn.Write},
		{"POST", "get", authn.Read | authn.Write},
		{"POST", "DELETE, HEAD", authn.Read | authn.Write},
	} {
		asker.assert(protocols, "X-HTTP-Method-Override", c, readToken, writeToken, bothToken)
	}
	for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		for _, spelling := range spellings(header) {
			asker.assert(protocols, spelling, namedCase{"GET", "DELETE", authn.Read | authn.Write}, readToken)
		}
	}
}

func TestOtherNamesAreNoHeadersThatNameAMethod(t *testing.T) {
	asker := newNamingAsker(t)
	for _, header := range []string{
		"X-Payment-Method", "Access-Control-Request-Method", "Methods", "X-Original-Methods", "XOriginalMethod", "X-Original--Method", "Od", "B",
		"X-HTTP-Method-Overrides", "X-Override", "Override",
	} {
		asker.assert(protocols, header, namedCase{"GET", "POST", authn.Read}, readToken)
	}
}

// namingAsker asks about requests with headers that name a method.
type namingAsker struct {
	*testing.T
	address string
	envoy   envoyClient
}

func newNamingAsker(t *testing.T) *namingAsker {
	t.Helper()
	return &namingAsker{T: t, address: setup{}.serve(t), envoy: setup{}.envoyAsks(t, "")}
}

// assert asks about these tokens in these protocols, but for one that has the method in this very header, and over gRPC.
func (a *namingAsker) assert(protocols []string, header string, c namedCase, tokens ...string) {
	a.Helper()
	for _, token := range tokens {
		want := map[string]answer{readToken: readerMayRead(), writeToken: writerMayWrite(), bothToken: bothGranted()}[token]
		switch {
		case token == writeToken && c.access&authn.Read != 0:
			want = noReadAccess
		case token == readToken && c.access&authn.Write != 0:
			want = noWriteAccess
		}
		lines := []string{"X-API-Key: " + token, header + ": " + c.value}
		for _, protocol := range protocols {
			if strings.EqualFold(header, methodHeaders[protocol]) {
				continue
			}
			a.Run(strings.Join([]string{protocol, token, c.method, header, c.value}, " "), func(t *testing.T) {
				assertAnswer(t, send(t, a.address, askMethod(protocol, c.method, lines...)), want)
			})
		}
		for form := range headerForms {
			a.Run(strings.Join([]string{form, token, c.method, header, c.value}, " "), func(t *testing.T) {
				assertCheck(t, a.envoy, newCheck(form, c.method, lines...), inGRPC(want, "x-api-key"))
			})
		}
	}
}

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

func TestInvariant7_AMissingOrRepeatedMethodIsRejected(t *testing.T) {
	address := setup{}.serve(t)
	for _, unsynced := range []bool{false, true} { // a configuration error is reported in any case
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
					assertResponse(t, send(t, address, head("GET /auth/"+protocol+"/shop", lines...)), wrongMethods[protocol])
				})
			}
		}
	}
}

// otherMethodHeaders are the headers that gateways set to the method of a request, in some configuration.
var otherMethodHeaders = []string{
	"Method", "X-Forwarded-Method", "X-Original-Method", "X-Envoy-Original-Method", "X-Auth-Request-Method", "X-Forwarded-Http-Method",
	"X-Forwarded-Verb", "X-Method", "X-Orig-Method", "X-Origin-Method", "X-Original-Http-Method", "X-Original-Request-Method",
	"X-Original-Verb", "X-Real-Method", "X-Request-Method",
}

// spellings returns the spellings of a header that services and proxies may treat as the same.
func spellings(header string) []string {
	return []string{
		header, strings.ToLower(header), strings.ToUpper(header), strings.ReplaceAll(header, "-", "_"),
		strings.ReplaceAll(strings.ToLower(header), "-", "."), strings.ReplaceAll(strings.ToUpper(header), "-", "~"),
	}
}

func TestInvariant7_EnvoysEndpointRejectsHeadersThatNameAMethod(t *testing.T) {
	address := setup{}.serve(t)
	for _, header := range otherMethodHeaders {
		for _, spelling := range spellings(header) {
			for _, value := range []string{" GET", " POST", ""} {
				for _, method := range []string{"GET", "POST"} {
					t.Run(method+" "+spelling+":"+value, func(t *testing.T) {
						assertResponse(t, send(t, address, head(method+" /auth/envoy/shop/", "X-API-Key: "+bothToken, spelling+":"+value)), wrongEnvoyMethod)
					})
				}
			}
		}
		assertResponse(t, send(t, address, head("GET /auth/envoy/shop/", header+": GET")), wrongEnvoyMethod)
	}
}

// namedCase is a request with a header that names a method, and the access that both methods need.
type namedCase struct {
	method, value string
	access        authn.Access
}

// A gateway at the wrong endpoint sends the method in another header, and the client can choose the value of the right one.
func TestInvariant7_AMethodInAnotherHeaderNeedsItsAccessToo(t *testing.T) {
	checks := newMethodHeaderChecks(t)
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
		checks.assert(slices.Sorted(maps.Keys(methodHeaders)), "X-Real-Method", c, readToken, writeToken, bothToken)
	}
	for _, header := range otherMethodHeaders {
		for _, spelling := range spellings(header) {
			checks.assert(slices.Sorted(maps.Keys(methodHeaders)), spelling, namedCase{"GET", "POST", authn.Read | authn.Write}, readToken)
		}
	}
}

// Services that obey an override read its value in different ways.
func TestInvariant7_AnOverrideOfTheMethodNeedsWriteAccessToo(t *testing.T) {
	checks := newMethodHeaderChecks(t)
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
		checks.assert(protocols, "X-HTTP-Method-Override", c, readToken, writeToken, bothToken)
	}
	for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		for _, spelling := range spellings(header) {
			checks.assert(protocols, spelling, namedCase{"GET", "DELETE", authn.Read | authn.Write}, readToken)
		}
	}
}

func TestMethodHeaders_OtherHeadersNameNoMethod(t *testing.T) {
	checks := newMethodHeaderChecks(t)
	for _, header := range []string{
		"X-Payment-Method", "Access-Control-Request-Method", "Methods", "X-Original-Methods", "XOriginalMethod", "X-Original--Method", "Od", "B",
		"X-HTTP-Method-Overrides", "X-Override", "Override",
	} {
		checks.assert(protocols, header, namedCase{"GET", "POST", authn.Read}, readToken)
	}
}

// methodHeaderChecks sends checks for requests with headers that name a method.
type methodHeaderChecks struct {
	*testing.T
	address string
	envoy   envoyClient
}

func newMethodHeaderChecks(t *testing.T) *methodHeaderChecks {
	t.Helper()
	return &methodHeaderChecks{T: t, address: setup{}.serve(t), envoy: setup{}.serveEnvoy(t, "")}
}

// assert checks these tokens in these protocols and over gRPC. It leaves out the protocol that has the method in this header.
func (a *methodHeaderChecks) assert(protocols []string, header string, c namedCase, tokens ...string) {
	a.Helper()
	for _, token := range tokens {
		want := map[string]response{readToken: readerGranted(), writeToken: writerGranted(), bothToken: bothGranted()}[token]
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
				assertResponse(t, send(t, a.address, httpCheckOf(protocol, c.method, lines...)), want)
			})
		}
		for form := range headerForms {
			a.Run(strings.Join([]string{form, token, c.method, header, c.value}, " "), func(t *testing.T) {
				assertCheck(t, a.envoy, newCheck(form, c.method, lines...), inGRPC(want, "x-api-key"))
			})
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

// credentialCase is the headers of a GET, and the response.
type credentialCase struct {
	name    string
	headers []string
	want    response
}

func credentialCases() []credentialCase {
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	return []credentialCase{
		{"X-API-Key", []string{"X-API-Key: " + readToken}, readGranted},
		{"X-API-Key in any case", []string{"x-api-key: " + readToken}, readGranted},
		{"Authorization: Bearer", []string{"Authorization: Bearer " + readToken}, readGranted},
		{"both headers, the key in X-API-Key", []string{"X-API-Key: " + readToken, "Authorization: Basic abc"}, readGranted},
		{"both headers, the key in Authorization", []string{"X-API-Key: nope", "Authorization: Bearer " + readToken}, unauthenticated},
		{"an empty X-API-Key, and a key in Authorization", []string{"X-API-Key:", "Authorization: Bearer " + readToken}, unauthenticated},

		{"no credential", nil, unauthenticated},
		{"empty X-API-Key", []string{"X-API-Key:"}, unauthenticated},
		{"empty Bearer", []string{"Authorization: Bearer "}, unauthenticated},
		{"another scheme", []string{"Authorization: Basic " + readToken}, unauthenticated},
		{"no scheme", []string{"Authorization: " + readToken}, unauthenticated},
		{"over-long", []string{"X-API-Key: " + strings.Repeat("k", 513)}, unauthenticated},
		{"X-API-Key twice", []string{"X-API-Key: " + readToken, "X-API-Key: " + readToken}, unauthenticated},
		{"Authorization twice", []string{"Authorization: Bearer " + readToken, "Authorization: Bearer " + readToken}, unauthenticated},
		{"comma-joined", []string{"X-API-Key: " + readToken + "," + readToken}, unauthenticated},
		{"comma-joined, empty second", []string{"X-API-Key: " + readToken + ","}, unauthenticated},
		{"white space inside", []string{"X-API-Key: sq_ read"}, unauthenticated},
		{"a tab inside", []string{"X-API-Key: sq_\tread"}, unauthenticated},
		{"non-ASCII", []string{"X-API-Key: sq_réad"}, unauthenticated},
		{"bytes that are not UTF-8", []string{"X-API-Key: sq_\xff\xfe"}, unauthenticated},

		{"unknown", []string{"X-API-Key: sq_unknown"}, unauthenticated},
		{"deactivated", []string{"X-API-Key: " + deactivatedToken}, unauthenticated},
		{"expired", []string{"X-API-Key: " + expiredToken}, unauthenticated},
		{"superseded", []string{"X-API-Key: " + supersededToken}, unauthenticated},
		{"not handed over yet", []string{"X-API-Key: " + unissuedToken}, unauthenticated},
		{"in another namespace", []string{"X-API-Key: " + otherToken}, unauthenticated},
	}
}

func TestHandler_DecidesCredentialsTheSameInEachProtocol(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range protocols {
		for _, c := range credentialCases() {
			t.Run(protocol+"/"+c.name, func(t *testing.T) {
				assertResponse(t, send(t, address, httpCheck(protocol, c.headers...)), c.want)
			})
		}
	}
}

// net/http rejects control characters other than the tab.
func TestHandler_RejectsControlCharactersInACredential(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range protocols {
		for _, control := range []string{"\x00", "\x01", "\x1f", "\x7f"} {
			assertResponse(t, send(t, address, httpCheck(protocol, "X-API-Key: sq_"+control+"read")), badRequest)
		}
	}
}

// methodCase is a method, and the responses to keys with read, write and both accesses.
type methodCase struct {
	method                string
	reader, writer, owner response
}

func readerGranted() response { return granted("Frontend%20App", "shop", "reader-uid", "read") }

func writerGranted() response {
	return granted("Gr%C3%B6%C3%9Fe%20%F0%9F%A6%80", "shop", "writer-uid", "write")
}

func bothGranted() response { return granted("both", "shop", "both-uid", "read,write") }

func methodCases() []methodCase {
	readGranted, writeGranted, bothGranted := readerGranted(), writerGranted(), bothGranted()
	return []methodCase{
		{"GET", readGranted, noReadAccess, bothGranted},
		{"OPTIONS", readGranted, noReadAccess, bothGranted},
		{"POST", noWriteAccess, writeGranted, bothGranted},
		{"PUT", noWriteAccess, writeGranted, bothGranted},
		{"PATCH", noWriteAccess, writeGranted, bothGranted},
		{"DELETE", noWriteAccess, writeGranted, bothGranted},
		{"TRACE", noWriteAccess, writeGranted, bothGranted},
		{"CONNECT", noWriteAccess, writeGranted, bothGranted},
		{"PROPFIND", noWriteAccess, writeGranted, bothGranted},
		{"UNKNOWN-METHOD", noWriteAccess, writeGranted, bothGranted},
		{"get", noWriteAccess, writeGranted, bothGranted}, // methods are case-sensitive: this is an unknown one
	}
}

func TestHandler_TheMethodDecidesTheAccess(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range protocols {
		for _, c := range methodCases() {
			t.Run(protocol+"/"+c.method, func(t *testing.T) {
				assertResponse(t, send(t, address, httpCheckOf(protocol, c.method, "X-API-Key: "+readToken)), c.reader)
				assertResponse(t, send(t, address, httpCheckOf(protocol, c.method, "X-API-Key: "+writeToken)), c.writer)
				assertResponse(t, send(t, address, httpCheckOf(protocol, c.method, "X-API-Key: "+bothToken)), c.owner)
			})
		}
	}
}

func TestHandler_HEADNeedsReadAccess(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range slices.Sorted(maps.Keys(methodHeaders)) {
		assertResponse(t, send(t, address, httpCheckOf(protocol, "HEAD", "X-API-Key: "+readToken)),
			granted("Frontend%20App", "shop", "reader-uid", "read"))
		assertResponse(t, send(t, address, httpCheckOf(protocol, "HEAD", "X-API-Key: "+writeToken)), noReadAccess)
	}
}

func TestHandler_RespondsToHEADWithoutBody(t *testing.T) {
	address := setup{}.serve(t)
	withoutBody := func(a response) response { a.Body = ""; return a }
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	delete(readGranted.Header, "Content-Length")
	assertResponse(t, send(t, address, httpCheckOf("envoy", "HEAD", "X-API-Key: "+readToken)), readGranted)
	assertResponse(t, send(t, address, httpCheckOf("envoy", "HEAD", "X-API-Key: "+writeToken)), withoutBody(noReadAccess))
	assertResponse(t, send(t, address, head("HEAD /auth/nginx/shop")), withoutBody(wrongNginxMethod))
	assertResponse(t, send(t, address, head("HEAD /auth")), withoutBody(unknownPath))
}

func TestHandler_IgnoresTheMethodOfACheckWithAMethodHeader(t *testing.T) {
	address := setup{}.serve(t)
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	for protocol, header := range methodHeaders {
		for _, own := range []string{"GET", "POST", "DELETE", "OPTIONS", "BREW"} {
			target := own + " /auth/" + protocol + "/shop"
			assertResponse(t, send(t, address, head(target, "X-API-Key: "+readToken, header+": GET")), readGranted)
			assertResponse(t, send(t, address, head(target, "X-API-Key: "+readToken, header+": POST")), noWriteAccess)
		}
	}
}

func TestHandler_InsufficientAccessStatusCanBe403(t *testing.T) {
	address := setup{insufficientAccessStatus: http.StatusForbidden}.serve(t)
	challenge := `Bearer realm="apikey-operator", error="insufficient_scope"`
	for _, protocol := range protocols {
		assertResponse(t, send(t, address, httpCheckOf(protocol, "GET", "X-API-Key: "+writeToken)),
			errorResponse(403, "API key does not have read access").and("Www-Authenticate", challenge))
		assertResponse(t, send(t, address, httpCheckOf(protocol, "POST", "X-API-Key: "+readToken)),
			errorResponse(403, "API key does not have write access").and("Www-Authenticate", challenge))
		assertResponse(t, send(t, address, httpCheck(protocol)), unauthenticated)
	}
}

func TestInvariant4_AnUnsyncedKeyringIs503(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, method := range []string{"GET", "POST", "get"} {
				assertResponse(t, send(t, address, httpCheckOf(protocol, method, "X-API-Key: "+readToken)), unavailable)
				assertResponse(t, send(t, address, httpCheckOf(protocol, method, "X-API-Key: sq_unknown")), unavailable)
				assertResponse(t, send(t, address, httpCheckOf(protocol, method)), unavailable)
				assertResponse(t, send(t, address, httpCheckOf(protocol, method, "X-API-Key: a", "X-API-Key: b")), unavailable)
			}
		})
	}
}

func TestInvariant6_AKeyIsValidOnlyInItsNamespace(t *testing.T) {
	address := setup{}.serve(t)
	inOther := granted("reader", "other", "reader-uid", "read")
	in := func(namespace, protocol, token string) response {
		return send(t, address, strings.Replace(httpCheck(protocol, "X-API-Key: "+token), "/shop", "/"+namespace, 1))
	}
	for _, protocol := range protocols {
		for _, c := range []struct{ namespace, token string }{{"shop", otherToken}, {"other", readToken}, {"nowhere", readToken}} {
			assertResponse(t, in(c.namespace, protocol, c.token), unauthenticated)
		}
		assertResponse(t, in("other", protocol, otherToken), inOther)
	}
}

func TestHandler_IgnoresUpgradeHeaders(t *testing.T) {
	address := setup{}.serve(t)
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"}
	for _, protocol := range protocols {
		assertResponse(t, send(t, address, httpCheckOf(protocol, "GET", append(upgrade, "X-API-Key: "+readToken)...)),
			granted("Frontend%20App", "shop", "reader-uid", "read"))
		assertResponse(t, send(t, address, httpCheckOf(protocol, "POST", append(upgrade, "X-API-Key: "+readToken)...)), noWriteAccess)
		assertResponse(t, send(t, address, httpCheckOf(protocol, "CONNECT", append(upgrade, ":protocol: websocket", "X-API-Key: "+readToken)...)),
			badRequest) // HTTP/1.1 has no pseudo-headers
	}
}

func TestHandler_DoesNotWaitForABody(t *testing.T) {
	address := setup{}.serve(t)
	bodies := []struct {
		name   string
		header string
		sent   string
	}{
		{"10 GB announced, nothing sent", "Content-Length: 10737418240", ""},
		{"5 bytes announced, nothing sent", "Content-Length: 5", ""},
		{"5 bytes announced, 3 sent", "Content-Length: 5", "abc"},
		{"chunked, nothing sent", "Transfer-Encoding: chunked", ""},
		{"chunked, no end", "Transfer-Encoding: chunked", "3\r\nabc\r\n"},
		{"another request in the body", "Content-Length: 1000", httpCheck("forward", "X-API-Key: "+readToken)},
	}
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read").and("Connection", "close")
	for _, protocol := range protocols {
		for _, body := range bodies {
			t.Run(protocol+"/"+body.name, func(t *testing.T) {
				assertResponse(t, send(t, address, httpCheck(protocol, "X-API-Key: "+readToken, body.header)+body.sent), readGranted)
				assertResponse(t, send(t, address, httpCheck(protocol, body.header)+body.sent), unauthenticated.and("Connection", "close"))
			})
		}
	}
}

func TestHandler_RespondsToExpectContinueAtOnce(t *testing.T) {
	address := setup{}.serve(t)
	assertResponse(t, send(t, address, httpCheck("forward", "X-API-Key: "+readToken, "Content-Length: 5", "Expect: 100-continue")),
		granted("Frontend%20App", "shop", "reader-uid", "read").and("Connection", "close"))
}

func TestHandler_RespondsTheSameOverHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(setup{}.handler(t))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	check := func(method, path, key, body string) response {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		framework.Must(t, err)
		request.Header.Set("X-API-Key", key)
		response, err := server.Client().Do(request)
		framework.Must(t, err)
		if response.ProtoMajor != 2 {
			t.Fatalf("the protocol is %s, not HTTP/2", response.Proto)
		}
		return read(t, response)
	}
	assertResponse(t, check("GET", "/auth/envoy/shop/../a//b?c=d", readToken, ""), granted("Frontend%20App", "shop", "reader-uid", "read"))
	assertResponse(t, check("POST", "/auth/envoy/shop/a", readToken, "a body"), noWriteAccess)
	assertResponse(t, check("GET", "/auth/envoy/shop/a", "sq_unknown", ""), unauthenticated)
	assertResponse(t, check("GET", "/auth/envoy/%73hop/a", readToken, ""), wrongEnvoyPath)
}

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
)

// credentialCase is the headers of a GET, and the answer.
type credentialCase struct {
	name    string
	headers []string
	want    answer
}

func credentialCases() []credentialCase {
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	return []credentialCase{
		{"X-API-Key", []string{"X-API-Key: " + readToken}, readGranted},
		{"X-API-Key in any case", []string{"x-api-key: " + readToken}, readGranted},
		{"Authorization: Bearer", []string{"Authorization: Bearer " + readToken}, readGranted},
		{"both headers, the key in X-API-Key", []string{"X-API-Key: " + readToken, "Authorization: Basic abc"}, readGranted},
		{"both headers, the key in Authorization", []string{"X-API-Key: nope", "Authorization: Bearer " + readToken}, unauthenticated},
		{"an empty X-API-Key beside a key in Authorization", []string{"X-API-Key:", "Authorization: Bearer " + readToken}, unauthenticated},

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
		{"bytes that are no UTF-8", []string{"X-API-Key: sq_\xff\xfe"}, unauthenticated},

		{"unknown", []string{"X-API-Key: sq_unknown"}, unauthenticated},
		{"deactivated", []string{"X-API-Key: " + deactivatedToken}, unauthenticated},
		{"expired", []string{"X-API-Key: " + expiredToken}, unauthenticated},
		{"superseded", []string{"X-API-Key: " + supersededToken}, unauthenticated},
		{"not handed over yet", []string{"X-API-Key: " + unissuedToken}, unauthenticated},
		{"of another namespace", []string{"X-API-Key: " + otherToken}, unauthenticated},
	}
}

func TestCredentialDecidesTheSameInEachProtocol(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range protocols {
		for _, c := range credentialCases() {
			t.Run(protocol+"/"+c.name, func(t *testing.T) {
				assertAnswer(t, send(t, address, ask(protocol, c.headers...)), c.want)
			})
		}
	}
}

// Control characters other than the tab never get past net/http.
func TestCredentialWithAControlCharacterIsABadRequest(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range protocols {
		for _, control := range []string{"\x00", "\x01", "\x1f", "\x7f"} {
			assertAnswer(t, send(t, address, ask(protocol, "X-API-Key: sq_"+control+"read")), badRequest)
		}
	}
}

// methodCase is the answers to keys that may read, write and both.
type methodCase struct {
	method                string
	reader, writer, owner answer
}

func readerMayRead() answer { return granted("Frontend%20App", "shop", "reader-uid", "read") }

func writerMayWrite() answer {
	return granted("Gr%C3%B6%C3%9Fe%20%F0%9F%A6%80", "shop", "writer-uid", "write")
}

func bothGranted() answer { return granted("both", "shop", "both-uid", "read,write") }

func methodCases() []methodCase {
	readGranted, writeGranted, bothGranted := readerMayRead(), writerMayWrite(), bothGranted()
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
		{"NOBODY-KNOWS-IT", noWriteAccess, writeGranted, bothGranted},
		{"get", noWriteAccess, writeGranted, bothGranted}, // methods are case-sensitive: this is another one, which nobody knows
	}
}

func TestMethodDecidesWhichRightIsNeeded(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range protocols {
		for _, c := range methodCases() {
			t.Run(protocol+"/"+c.method, func(t *testing.T) {
				assertAnswer(t, send(t, address, askMethod(protocol, c.method, "X-API-Key: "+readToken)), c.reader)
				assertAnswer(t, send(t, address, askMethod(protocol, c.method, "X-API-Key: "+writeToken)), c.writer)
				assertAnswer(t, send(t, address, askMethod(protocol, c.method, "X-API-Key: "+bothToken)), c.owner)
			})
		}
	}
}

func TestHeadNeedsReadAccess(t *testing.T) {
	address := setup{}.serve(t)
	for _, protocol := range slices.Sorted(maps.Keys(methodHeaders)) {
		assertAnswer(t, send(t, address, askMethod(protocol, "HEAD", "X-API-Key: "+readToken)),
			granted("Frontend%20App", "shop", "reader-uid", "read"))
		assertAnswer(t, send(t, address, askMethod(protocol, "HEAD", "X-API-Key: "+writeToken)), noReadAccess)
	}
}

func TestOwnHeadIsAnsweredWithoutBody(t *testing.T) {
	address := setup{}.serve(t)
	withoutBody := func(a answer) answer { a.Body = ""; return a }
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	delete(readGranted.Header, "Content-Length")
	assertAnswer(t, send(t, address, askMethod("envoy", "HEAD", "X-API-Key: "+readToken)), readGranted)
	assertAnswer(t, send(t, address, askMethod("envoy", "HEAD", "X-API-Key: "+writeToken)), withoutBody(noReadAccess))
	assertAnswer(t, send(t, address, head("HEAD /auth/nginx/shop")), withoutBody(wrongNginxMethod))
	assertAnswer(t, send(t, address, head("HEAD /auth")), withoutBody(unknownPath))
}

func TestOwnMethodOfAGatewayThatNamesTheClientsIsWithoutMeaning(t *testing.T) {
	address := setup{}.serve(t)
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	for protocol, header := range methodHeaders {
		for _, own := range []string{"GET", "POST", "DELETE", "OPTIONS", "BREW"} {
			target := own + " /auth/" + protocol + "/shop"
			assertAnswer(t, send(t, address, head(target, "X-API-Key: "+readToken, header+": GET")), readGranted)
			assertAnswer(t, send(t, address, head(target, "X-API-Key: "+readToken, header+": POST")), noWriteAccess)
		}
	}
}

func TestInsufficientAccessCanBe403(t *testing.T) {
	address := setup{insufficientAccessStatus: http.StatusForbidden}.serve(t)
	challenge := `Bearer realm="apikey-operator", error="insufficient_scope"`
	for _, protocol := range protocols {
		assertAnswer(t, send(t, address, askMethod(protocol, "GET", "X-API-Key: "+writeToken)),
			envelope(403, "API key does not have read access").and("Www-Authenticate", challenge))
		assertAnswer(t, send(t, address, askMethod(protocol, "POST", "X-API-Key: "+readToken)),
			envelope(403, "API key does not have write access").and("Www-Authenticate", challenge))
		assertAnswer(t, send(t, address, ask(protocol)), unauthenticated)
	}
}

func TestInvariant4_NotSyncedIs503NeverARefusal(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, method := range []string{"GET", "POST", "get"} {
				assertAnswer(t, send(t, address, askMethod(protocol, method, "X-API-Key: "+readToken)), unavailable)
				assertAnswer(t, send(t, address, askMethod(protocol, method, "X-API-Key: sq_unknown")), unavailable)
				assertAnswer(t, send(t, address, askMethod(protocol, method)), unavailable)
				assertAnswer(t, send(t, address, askMethod(protocol, method, "X-API-Key: a", "X-API-Key: b")), unavailable)
			}
		})
	}
}

func TestInvariant6_AKeyIsGoodOnlyInItsNamespace(t *testing.T) {
	address := setup{}.serve(t)
	inOther := granted("reader", "other", "reader-uid", "read")
	in := func(namespace, protocol, token string) answer {
		return send(t, address, strings.Replace(ask(protocol, "X-API-Key: "+token), "/shop", "/"+namespace, 1))
	}
	for _, protocol := range protocols {
		for _, c := range []struct{ namespace, token string }{{"shop", otherToken}, {"other", readToken}, {"nowhere", readToken}} {
			assertAnswer(t, in(c.namespace, protocol, c.token), unauthenticated)
		}
		assertAnswer(t, in("other", protocol, otherToken), inOther)
	}
}

func TestUpgradeIsNeverConsulted(t *testing.T) {
	address := setup{}.serve(t)
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"}
	for _, protocol := range protocols {
		assertAnswer(t, send(t, address, askMethod(protocol, "GET", append(upgrade, "X-API-Key: "+readToken)...)),
			granted("Frontend%20App", "shop", "reader-uid", "read"))
		assertAnswer(t, send(t, address, askMethod(protocol, "POST", append(upgrade, "X-API-Key: "+readToken)...)), noWriteAccess)
		assertAnswer(t, send(t, address, askMethod(protocol, "CONNECT", append(upgrade, ":protocol: websocket", "X-API-Key: "+readToken)...)),
			badRequest) // a pseudo-header is none in HTTP/1.1
	}
}

func TestBodyIsNotWaitedFor(t *testing.T) {
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
		{"another request in the body", "Content-Length: 1000", ask("forward", "X-API-Key: "+readToken)},
	}
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read").and("Connection", "close")
	for _, protocol := range protocols {
		for _, body := range bodies {
			t.Run(protocol+"/"+body.name, func(t *testing.T) {
				assertAnswer(t, send(t, address, ask(protocol, "X-API-Key: "+readToken, body.header)+body.sent), readGranted)
				assertAnswer(t, send(t, address, ask(protocol, body.header)+body.sent), unauthenticated.and("Connection", "close"))
			})
		}
	}
}

func TestExpectContinueIsAnsweredAtOnce(t *testing.T) {
	address := setup{}.serve(t)
	assertAnswer(t, send(t, address, ask("forward", "X-API-Key: "+readToken, "Content-Length: 5", "Expect: 100-continue")),
		granted("Frontend%20App", "shop", "reader-uid", "read").and("Connection", "close"))
}

func TestHTTP2IsAnsweredTheSame(t *testing.T) {
	server := httptest.NewUnstartedServer(setup{}.handler(t))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ask := func(method, path, key, body string) answer {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-API-Key", key)
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if response.ProtoMajor != 2 {
			t.Fatalf("asked with %s, not HTTP/2", response.Proto)
		}
		return read(t, response)
	}
	assertAnswer(t, ask("GET", "/auth/envoy/shop/../a//b?c=d", readToken, ""), granted("Frontend%20App", "shop", "reader-uid", "read"))
	assertAnswer(t, ask("POST", "/auth/envoy/shop/a", readToken, "a body"), noWriteAccess)
	assertAnswer(t, ask("GET", "/auth/envoy/shop/a", "sq_unknown", ""), unauthenticated)
	assertAnswer(t, ask("GET", "/auth/envoy/%73hop/a", readToken, ""), wrongEnvoyPath)
}

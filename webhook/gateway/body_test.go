// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	reviewPath     = "/auth/tokenreview/shop"
	introspectPath = "/auth/introspect/shop"
	jsonType       = "Content-Type: application/json"
	formType       = "Content-Type: application/x-www-form-urlencoded"
)

// bodyProtocols are the protocols with the check in the body, each with a check that is granted.
var bodyProtocols = map[string]struct{ path, contentType, body, wrongType string }{
	"tokenreview": {reviewPath, jsonType, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"sq_read"}}`,
		"The Content-Type of the request is not application/json: send the body in this form."},
	"introspect": {introspectPath, formType, "token=sq_read&other=",
		"The Content-Type of the request is not application/x-www-form-urlencoded: send the body in this form."},
}

// post writes a POST with a body.
func post(target, body string, headers ...string) string {
	return head("POST "+target, append(headers, "X-API-Key: "+readToken, "Content-Length: "+strconv.Itoa(len(body)))...) + body
}

func (a response) closing() response { return a.and("Connection", "close") }

func TestReadBody_RequiresPOST(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	want := errorResponse(405, "The method of the request is not POST: send the check in the body of a POST.").and("Allow", "POST")
	for _, p := range bodyProtocols {
		for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "post", "QUERY"} {
			assertResponse(t, send(t, address, head(method+" "+p.path)), want)
			request := strings.Replace(post(p.path, p.body, p.contentType), "POST", method, 1)
			assertResponse(t, send(t, address, request), want.closing())
		}
		want := want
		want.Body = ""
		assertResponse(t, send(t, address, head("HEAD "+p.path)), want)
	}
}

func TestReadBody_RequiresTheMediaType(t *testing.T) {
	address := setup{}.serve(t)
	for name, p := range bodyProtocols {
		for parameters, ok := range map[string]bool{
			"": true, "; charset=utf-8": true, ";charset=UTF-8": true, "; a=b; c=\"d\"": true,
			";": true, "; charset": false, "; charset=a; charset=b": false, "x": false, ", text/plain": false, "\r\n" + p.contentType: false,
		} {
			got := send(t, address, post(p.path, p.body, p.contentType+parameters))
			if want := errorResponse(415, p.wrongType).closing(); !ok {
				assertResponse(t, got, want)
			} else if got.Status != http.StatusOK {
				t.Errorf("%s: the response to %q is %v", name, p.contentType+parameters, got)
			}
		}
		for _, contentType := range []string{
			"X: no Content-Type", "Content-Type:", "Content-Type: text/plain", "Content-Type: application/yaml", "Content-Type: multipart/form-data",
			"Content-Type: application/vnd.kubernetes.protobuf", "Content-Type: application", "Content-Type: */*",
		} {
			assertResponse(t, send(t, address, post(p.path, p.body, contentType)), errorResponse(415, p.wrongType).closing())
		}
	}
	wrong := bodyProtocols["tokenreview"]
	assertResponse(t, send(t, address, post(introspectPath, wrong.body, wrong.contentType)),
		errorResponse(415, bodyProtocols["introspect"].wrongType).closing())
}

func TestReadBody_RejectsLargeBodies(t *testing.T) {
	address := setup{}.serve(t)
	tooLarge := errorResponse(413, "The request body is larger than 65536 bytes: send one token.").closing()
	for name, p := range bodyProtocols {
		padding := map[string]string{"tokenreview": " ", "introspect": "x"}[name]
		largest := p.body + strings.Repeat(padding, 65536-len(p.body))
		if got := send(t, address, post(p.path, largest, p.contentType)); got.Status != http.StatusOK {
			t.Errorf("%s: the response to the largest body is %v", name, got)
		}
		assertResponse(t, send(t, address, post(p.path, largest+padding, p.contentType)), tooLarge)
		chunked := head("POST "+p.path, p.contentType, "Transfer-Encoding: chunked") + "10001\r\n" + largest + padding + "\r\n0\r\n\r\n"
		assertResponse(t, send(t, address, chunked), tooLarge)
	}
}

func TestReadBody_RejectsIncompleteBodies(t *testing.T) {
	server := httptest.NewUnstartedServer(setup{}.handler(t))
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	incomplete := errorResponse(400, "The request body is incomplete: it is shorter than announced, or arrived too slowly. Send the request again.").closing()
	for name, p := range bodyProtocols {
		for how, request := range map[string]string{
			"a byte less":    strings.TrimSuffix(post(p.path, p.body, p.contentType), p.body[len(p.body)-1:]),
			"nothing at all": strings.TrimSuffix(post(p.path, p.body, p.contentType), p.body),
			"no last chunk":  head("POST "+p.path, p.contentType, "Transfer-Encoding: chunked") + "5\r\ntoken\r\n",
			"a bad chunk":    head("POST "+p.path, p.contentType, "Transfer-Encoding: chunked") + "x\r\ntoken\r\n0\r\n\r\n",
		} {
			t.Run(name+", "+how+", too slow", func(t *testing.T) {
				assertResponse(t, send(t, address, request), incomplete)
			})
			t.Run(name+", "+how+", connection closed", func(t *testing.T) {
				assertResponse(t, sendAndClose(t, address, request), incomplete)
			})
		}
	}
}

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

// asksInBody are the protocols whose question is in a body, each with a question that is granted.
var asksInBody = map[string]struct{ path, contentType, body, wrongType string }{
	"tokenreview": {reviewPath, jsonType, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"sq_read"}}`,
		"The Content-Type of the request is not application/json: send the body in this form."},
	"introspect": {introspectPath, formType, "token=sq_read&other=",
		"The Content-Type of the request is not application/x-www-form-urlencoded: send the body in this form."},
}

// post writes a POST with a body.
func post(target, body string, headers ...string) string {
	return head("POST "+target, append(headers, "X-API-Key: "+readToken, "Content-Length: "+strconv.Itoa(len(body)))...) + body
}

func (a answer) closing() answer { return a.and("Connection", "close") }

func TestAQuestionInABodyIsAskedByPOST(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	want := envelope(405, "The method of the request is not POST: send the check in the body of a POST.").and("Allow", "POST")
	for _, ask := range asksInBody {
		for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "post", "QUERY"} {
			assertAnswer(t, send(t, address, head(method+" "+ask.path)), want)
			request := strings.Replace(post(ask.path, ask.body, ask.contentType), "POST", method, 1)
			assertAnswer(t, send(t, address, request), want.closing())
		}
		want := want
		want.Body = ""
		assertAnswer(t, send(t, address, head("HEAD "+ask.path)), want)
	}
}

func TestABodyIsOfOneMediaType(t *testing.T) {
	address := setup{}.serve(t)
	for name, ask := range asksInBody {
		for parameters, ok := range map[string]bool{
			"": true, "; charset=utf-8": true, ";charset=UTF-8": true, "; a=b; c=\"d\"": true,
			";": true, "; charset": false, "; charset=a; charset=b": false, "x": false, ", text/plain": false, "\r\n" + ask.contentType: false,
		} {
			got := send(t, address, post(ask.path, ask.body, ask.contentType+parameters))
			if want := envelope(415, ask.wrongType).closing(); !ok {
				assertAnswer(t, got, want)
			} else if got.Status != http.StatusOK {
				t.Errorf("%s: %q is answered %v", name, ask.contentType+parameters, got)
			}
		}
		for _, contentType := range []string{
			"X: no Content-Type", "Content-Type:", "Content-Type: text/plain", "Content-Type: application/yaml", "Content-Type: multipart/form-data",
			"Content-Type: application/vnd.kubernetes.protobuf", "Content-Type: application", "Content-Type: */*",
		} {
			assertAnswer(t, send(t, address, post(ask.path, ask.body, contentType)), envelope(415, ask.wrongType).closing())
		}
	}
	wrong := asksInBody["tokenreview"]
	assertAnswer(t, send(t, address, post(introspectPath, wrong.body, wrong.contentType)),
		envelope(415, asksInBody["introspect"].wrongType).closing())
}

func TestALargeBodyIsRefused(t *testing.T) {
	address := setup{}.serve(t)
	tooLarge := envelope(413, "The request body is larger than 65536 bytes: send one token.").closing()
	for name, ask := range asksInBody {
		padding := map[string]string{"tokenreview": " ", "introspect": "x"}[name]
		largest := ask.body + strings.Repeat(padding, 65536-len(ask.body))
		if got := send(t, address, post(ask.path, largest, ask.contentType)); got.Status != http.StatusOK {
			t.Errorf("%s: the largest body is answered %v", name, got)
		}
		assertAnswer(t, send(t, address, post(ask.path, largest+padding, ask.contentType)), tooLarge)
		chunked := head("POST "+ask.path, ask.contentType, "Transfer-Encoding: chunked") + "10001\r\n" + largest + padding + "\r\n0\r\n\r\n"
		assertAnswer(t, send(t, address, chunked), tooLarge)
	}
}

func TestABodyThatDoesNotComeToItsEndIsRefused(t *testing.T) {
	server := httptest.NewUnstartedServer(setup{}.handler(t))
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	cutShort := envelope(400, "The request body is incomplete: it is shorter than announced, or arrived too slowly. Send the request again.").closing()
	for name, ask := range asksInBody {
		for how, request := range map[string]string{
			"a byte less":    strings.TrimSuffix(post(ask.path, ask.body, ask.contentType), ask.body[len(ask.body)-1:]),
			"nothing at all": strings.TrimSuffix(post(ask.path, ask.body, ask.contentType), ask.body),
			"no last chunk":  head("POST "+ask.path, ask.contentType, "Transfer-Encoding: chunked") + "5\r\ntoken\r\n",
			"a bad chunk":    head("POST "+ask.path, ask.contentType, "Transfer-Encoding: chunked") + "x\r\ntoken\r\n0\r\n\r\n",
		} {
			t.Run(name+", "+how+", too slow", func(t *testing.T) {
				assertAnswer(t, send(t, address, request), cutShort)
			})
			t.Run(name+", "+how+", and no more to come", func(t *testing.T) {
				assertAnswer(t, sendAndClose(t, address, request), cutShort)
			})
		}
	}
}

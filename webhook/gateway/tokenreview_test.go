// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// review returns a request with a TokenReview of a token.
func review(token string) string {
	return reviewOf(`"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":` + quoted(token) + `}`)
}

// reviewOf returns a request with a TokenReview of these fields.
func reviewOf(fields string) string { return post(reviewPath, "{"+fields+"}", jsonType) }

// reviewed is the response with this status.
func reviewed(status string) response { return reviewedAs("v1", status) }

func reviewedAs(version, status string) response {
	return jsonResponse(`{"kind":"TokenReview","apiVersion":"authentication.k8s.io/` + version + `","metadata":{},"spec":{},"status":` + status + `}`)
}

func jsonResponse(body string) response {
	return response{Status: 200, Body: body, Header: map[string]string{
		"Cache-Control":  "no-store",
		"Content-Type":   "application/json",
		"Content-Length": strconv.Itoa(len(body)),
	}}
}

func quoted(text string) string {
	encoded, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(encoded)
}

var (
	notAuthenticated = reviewed(`{"user":{}}`)
	readerReviewed   = reviewed(`{"authenticated":true,"user":{"username":"apikey:shop:reader","uid":"reader-uid",` +
		`"groups":["apikeys","apikeys:shop","apikeys:shop:read"],"extra":{"keys.squirrel.dev/app-name":["Frontend App"]}}}`)
	notTokenReview = errorResponse(400, `The request body is not a TokenReview: set "apiVersion": "authentication.k8s.io/v1" and "kind": "TokenReview".`)
	notJSON        = errorResponse(400, "The request body is not a TokenReview: send one JSON object, with each field once and of the right type.")
	tokenMissing   = reviewed(`{"user":{},"error":"spec.token is empty: set it to the token to review"}`)
)

func TestTokenReview_ReturnsTheKey(t *testing.T) {
	address := setup{}.serve(t)
	for token, want := range map[string]response{
		readToken: readerReviewed,
		writeToken: reviewed(`{"authenticated":true,"user":{"username":"apikey:shop:writer","uid":"writer-uid",` +
			`"groups":["apikeys","apikeys:shop","apikeys:shop:write"],"extra":{"keys.squirrel.dev/app-name":["Größe 🦀"]}}}`),
		bothToken: reviewed(`{"authenticated":true,"user":{"username":"apikey:shop:both","uid":"both-uid",` +
			`"groups":["apikeys","apikeys:shop","apikeys:shop:read","apikeys:shop:write"],"extra":{"keys.squirrel.dev/app-name":["both"]}}}`),

		"sq_unknown":             notAuthenticated,
		deactivatedToken:         notAuthenticated,
		expiredToken:             notAuthenticated,
		supersededToken:          notAuthenticated,
		unissuedToken:            notAuthenticated,
		otherToken:               notAuthenticated,
		" ":                      notAuthenticated,
		readToken + " ":          notAuthenticated,
		readToken + "," + "x":    notAuthenticated,
		"sq_\x00\u00e9":          notAuthenticated,
		strings.Repeat("k", 513): notAuthenticated,
	} {
		assertResponse(t, send(t, address, review(token)), want)
	}
}

// By the rule of the API, a status without audiences is valid for the API server that sends the TokenReview, and for no other audience.
func TestTokenReview_ReturnsNoAudience(t *testing.T) {
	address := setup{}.serve(t)
	for _, audiences := range []string{`[]`, `["https://kubernetes.default.svc.cluster.local"]`, `["vault","shop"]`, `null`} {
		assertResponse(t, send(t, address, reviewOf(`"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview",`+
			`"spec":{"token":"sq_read","audiences":`+audiences+`}`)), readerReviewed)
	}
}

func TestTokenReview_DecodesAsKubernetesDoes(t *testing.T) {
	address := setup{}.serve(t)
	const v1, token = `"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview"`, `"spec":{"token":"sq_read"}`
	const v1beta1 = `{"user":{},"error":"authentication.k8s.io/v1beta1 is not supported: start kube-apiserver ` +
		`with --authentication-token-webhook-version=v1"}`
	for fields, want := range map[string]response{
		v1 + `,"metadata":{"creationTimestamp":null},` + token + `,"status":{"user":{}}`: readerReviewed,
		v1 + `,` + token + `,"status":{"authenticated":true,"user":{"username":"root"}}`: readerReviewed,
		v1 + `,"later":{"a":[1]},"spec":{"token":"sq_read","later":true}`:                readerReviewed,
		v1 + `,"SPEC":{"token":"a"},` + token:                                            readerReviewed,
		v1 + `,"spec":{"token":"sq_read","Token":"a"}`:                                   readerReviewed,
		v1 + `,"spec":{"\u0074oken":"sq\u005fread"}`:                                     readerReviewed,
		v1:                                 tokenMissing,
		v1 + `,"spec":null`:                tokenMissing,
		v1 + `,"spec":{}`:                  tokenMissing,
		v1 + `,"spec":{"token":""}`:        tokenMissing,
		v1 + `,"spec":{"token":null}`:      tokenMissing,
		v1 + `,"spec":{"Token":"sq_read"}`: tokenMissing,
		v1 + `,"token":"sq_read"`:          tokenMissing,
		`"apiVersion":"authentication.k8s.io/v1beta1","kind":"TokenReview",` + token: reviewedAs("v1beta1", v1beta1),
		`"apiVersion":"authentication.k8s.io/v1beta1","kind":"TokenReview"`:          reviewedAs("v1beta1", v1beta1),
		``:    notTokenReview,
		token: notTokenReview,
		`"apiVersion":"authentication.k8s.io/v1",` + token:                             notTokenReview,
		`"kind":"TokenReview",` + token:                                                notTokenReview,
		`"apiVersion":"v1","kind":"TokenReview",` + token:                              notTokenReview,
		`"apiVersion":"authentication.k8s.io/v2","kind":"TokenReview",` + token:        notTokenReview,
		`"apiVersion":"authentication.k8s.io/v1","kind":"tokenreview",` + token:        notTokenReview,
		`"apiVersion":"authentication.k8s.io/v1beta1","kind":"TokenRequest",` + token:  notTokenReview,
		`"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview",` + token: notTokenReview,
		v1 + `,` + token + `,"spec":{"token":"sq_both"}`:                               notJSON,
		v1 + `,"spec":{"token":"sq_unknown","token":"sq_read"}`:                        notJSON,
		v1 + `,"spec":{"token":"sq_read","token":"sq_read"}`:                           notJSON,
		v1 + `,"kind":"TokenReview",` + token:                                          notJSON,
		v1 + `,"spec":{"token":["sq_read"]}`:                                           notJSON,
		v1 + `,"spec":{"token":"sq_read","audiences":"a"}`:                             notJSON,
		v1 + `,"spec":"sq_read"`:                                                       notJSON,
		v1 + `,` + token + `,`:                                                         notJSON,
		v1 + `,` + token + `}{`:                                                        notJSON,
		v1 + `,` + token + `}garbage{`:                                                 notJSON,
		v1 + `,"spec":{"token":"sq_read"`:                                              notJSON,
		v1 + `,"spec":{"token":"sq_re`:                                                 notJSON,
	} {
		t.Run(fields, func(t *testing.T) {
			assertResponse(t, send(t, address, reviewOf(fields)), want)
		})
	}
	for body, want := range map[string]response{
		"": notJSON, "null": notTokenReview, "[]": notJSON, `"sq_read"`: notJSON, "spec:\n  token: sq_read\n": notJSON, "token=sq_read": notJSON,
		"\xef\xbb\xbf{}": notJSON, "k8s\x00\n\x0c": notJSON, strings.Repeat("[", 20000): notJSON,
	} {
		t.Run(body, func(t *testing.T) {
			assertResponse(t, send(t, address, post(reviewPath, body, jsonType)), want)
		})
	}
}

func TestInvariant4_ATokenReviewBeforeTheSyncIsUnavailable(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	for _, token := range []string{readToken, "sq_unknown", "a b"} {
		assertResponse(t, send(t, address, review(token)), unavailable)
	}
	assertResponse(t, send(t, address, review("")), tokenMissing)
	assertResponse(t, send(t, address, post(reviewPath, "{", jsonType)), notJSON)
}

func TestTokenReview_ServesItsPathAlone(t *testing.T) {
	address := setup{}.serve(t)
	body := bodyProtocols["tokenreview"].body
	// kube-apiserver sends its timeout in the query.
	assertResponse(t, send(t, address, post(reviewPath+"?timeout=30s", body, jsonType)), readerReviewed)
	for _, path := range []string{"/auth/tokenreview", "/auth/tokenreview/", "/auth/tokenreview/shop/", "/auth/tokenreview/shop/x", "/auth/tokenreview/Shop"} {
		assertResponse(t, send(t, address, post(path, body, jsonType)), wrongPath("/auth/tokenreview/{namespace}"))
	}
}

func TestTokenReview_LogsAMalformedReview(t *testing.T) {
	var out bytes.Buffer
	address := setup{log: slog.New(slog.NewJSONHandler(&out, nil))}.serve(t)
	send(t, address, review("sq_unknown"))
	send(t, address, reviewOf(`"apiVersion":"authentication.k8s.io/v1beta1","kind":"TokenReview","spec":{"token":"sq_read"}`))
	want := []map[string]any{{"level": "WARN", "protocol": "tokenreview", "msg": "A gateway is misconfigured: " +
		"authentication.k8s.io/v1beta1 is not supported: start kube-apiserver with --authentication-token-webhook-version=v1"}}
	if diff := cmp.Diff(want, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

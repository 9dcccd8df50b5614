// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"squirrel.dev/apikey-operator/webhook/gateway"
)

// The bounds are for the handler, without net/http. Where a bound includes pools, it leaves room for the race detector, which empties
// them at random.
func TestHandler_AllocatesLittle(t *testing.T) {
	handler := setup{}.handler(t)
	known, unknown := http.Header{"X-Api-Key": {readToken}}, http.Header{"X-Api-Key": {"sq_unknown"}}
	form := and(known, "Content-Type", "application/x-www-form-urlencoded")
	json := http.Header{"Content-Type": {"application/json"}}
	const reviewBegin, reviewEnd = `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"`, `"}}`
	for _, request := range []struct {
		name, method, path string
		header             http.Header
		body               string
		status, most       int
	}{
		{"envoy, granted", "GET", "/auth/envoy/shop/some/path", known, "", 200, 2},
		{"envoy, denied", "GET", "/auth/envoy/shop/some/path", unknown, "", 401, 0},
		{"envoy, in a namespace without keys", "GET", "/auth/envoy/nowhere/some/path", known, "", 401, 0},
		{"nginx, granted", "GET", "/auth/nginx/shop", and(known, "X-Original-Method", "GET"), "", 200, 2},
		{"nginx, denied", "GET", "/auth/nginx/shop", and(unknown, "X-Original-Method", "GET"), "", 401, 0},
		{"nginx-gateway-fabric, granted", "GET", "/auth/nginx-gateway-fabric/shop", and(known, "Method", "GET"), "", 200, 2},
		{"nginx-gateway-fabric, denied", "GET", "/auth/nginx-gateway-fabric/shop", and(unknown, "Method", "GET"), "", 401, 0},
		{"forward, granted", "GET", "/auth/forward/shop", and(known, "X-Forwarded-Method", "GET"), "", 200, 2},
		{"forward, headers of a browser", "GET", "/auth/forward/shop", and(browserHeader(), "X-Forwarded-Method", "GET"), "", 200, 2},
		{"forward, denied", "GET", "/auth/forward/shop", and(unknown, "X-Forwarded-Method", "GET"), "", 401, 0},
		{"tokenreview, known", "POST", "/auth/tokenreview/shop", json, reviewBegin + readToken + reviewEnd, 200, 40},
		{"tokenreview, unknown", "POST", "/auth/tokenreview/shop", json, reviewBegin + "sq_unknown" + reviewEnd, 200, 26},
		{"introspect, known", "POST", "/auth/introspect/shop", form, "token=" + readToken, 200, 18},
		{"introspect, unknown", "POST", "/auth/introspect/shop", form, "token=sq_unknown", 200, 6},
	} {
		httpRequest := httptest.NewRequestWithContext(t.Context(), request.method, request.path, nil)
		httpRequest.Header, httpRequest.ContentLength = request.header, int64(len(request.body))
		body := strings.NewReader("")
		httpRequest.Body = io.NopCloser(body)
		writer := &discarded{header: http.Header{}}
		allocations := testing.AllocsPerRun(100, func() {
			body.Reset(request.body)
			handler.ServeHTTP(writer, httpRequest)
		})
		if writer.status != request.status || allocations > float64(request.most) {
			t.Errorf("%s: the status is %d, want %d; it allocates %v times, want at most %d",
				request.name, writer.status, request.status, allocations, request.most)
		}
	}
}

func TestEnvoyGRPC_AllocatesLittle(t *testing.T) {
	authenticator, options := setup{}.parts(t)
	var envoy implementation
	gateway.RegisterEnvoy(&envoy, authenticator, "", options)
	for key, most := range map[string]float64{readToken: 3, "sq_unknown": 1} {
		check := browserCheck(key)
		allocations := testing.AllocsPerRun(100, func() {
			if _, err := envoy.Check(t.Context(), check); err != nil {
				t.Error(err)
			}
		})
		if allocations > most {
			t.Errorf("a check of %s allocates %v times, want at most %v", key, allocations, most)
		}
	}
}

func and(header http.Header, name, value string) http.Header {
	both := header.Clone()
	both.Set(name, value)
	return both
}

// browserCheck returns the check of Envoy for a request of a browser.
func browserCheck(key string) *authv3.CheckRequest {
	return newCheck("headers", "GET",
		"X-API-Key: "+key, "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
		"Accept: application/json, text/plain, */*", "Accept-Language: en-US,en;q=0.5", "Cookie: session=6c5b2f0f7f0f4b0e8b5a")
}

// discarded is a ResponseWriter that keeps the status alone.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header            { return d.header }
func (d *discarded) WriteHeader(status int)         { d.status = status }
func (d *discarded) Write(body []byte) (int, error) { return len(body), nil }

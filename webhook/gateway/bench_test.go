// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"squirrel.dev/apikey-operator/webhook/gateway"
)

// browserHeader returns the headers of a check for a request of a browser, from a gateway that forwards all headers.
func browserHeader() http.Header {
	return http.Header{
		"X-Api-Key":       {readToken},
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"},
		"Accept":          {"application/json, text/plain, */*"},
		"Accept-Encoding": {"gzip, deflate, br, zstd"}, "Accept-Language": {"en-US,en;q=0.5"},
		"Cookie": {"session=6c5b2f0f7f0f4b0e8b5a"}, "Referer": {"https://shop.example.com/"},
		"Sec-Fetch-Dest": {"empty"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Site": {"same-origin"},
		"X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"shop.example.com"}, "X-Forwarded-Uri": {"/orders"},
	}
}

func BenchmarkRequests(b *testing.B) {
	handler := setup{}.handler(b)
	known := http.Header{"X-Api-Key": {readToken}}
	for _, request := range []struct {
		name, path string
		header     http.Header
	}{
		{"envoy", "/auth/envoy/shop/some/path", known},
		{"nginx, headers of a browser", "/auth/nginx/shop", and(browserHeader(), "X-Original-Method", "GET")},
		{"forward, headers of a browser", "/auth/forward/shop", and(browserHeader(), "X-Forwarded-Method", "GET")},
		{"forward, unknown key", "/auth/forward/shop", and(and(browserHeader(), "X-Forwarded-Method", "GET"), "X-Api-Key", "sq_unknown")},
	} {
		b.Run(request.name, func(b *testing.B) {
			httpRequest := httptest.NewRequestWithContext(b.Context(), "GET", request.path, nil)
			httpRequest.Header = request.header
			writer := &discarded{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(writer, httpRequest)
			}
		})
	}
}

func BenchmarkChecks(b *testing.B) {
	authenticator, options := setup{}.parts(b)
	var envoy implementation
	gateway.RegisterEnvoy(&envoy, authenticator, "", options)
	check := browserCheck(readToken)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := envoy.Check(b.Context(), check); err != nil {
			b.Fatal(err)
		}
	}
}

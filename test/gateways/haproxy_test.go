// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"net"
	"net/http"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
)

func TestHAProxy_DeniesRequestsIfItsScriptFails(t *testing.T) {
	t.Parallel()
	s := &shop{T: t, certificate: newCertificate(t), namespace: "shop", keys: map[string]key{"reader": {token: "sq_reader"}}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	framework.Must(t, err)
	// It responds with 200, without the headers that the script reads.
	nameless := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: framework.Timeout}
	t.Cleanup(func() { _ = nameless.Close() })
	go func() { _ = nameless.ServeTLS(listener, s.certFile, s.keyFile) }()

	f := haproxy.startFront(s, listener.Addr().String())
	f.expectDenied("a request", http.StatusServiceUnavailable, func() response {
		return f.send("GET /", f.apiKey("reader"), "X-Auth-Key-Id: 1")
	})
}

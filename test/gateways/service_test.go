// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// echoPath is the path of WebSockets.
const echoPath = "/echo"

// service is a service behind a gateway. It responds with the request that it received, and echoes WebSocket messages.
type service struct {
	// address is host:port.
	address string
	// requests is the number of requests that it received.
	requests atomic.Int64
}

// received is a request as it reached the service.
type received struct {
	Method, Target, Body string
	Header               http.Header
}

func startService(t testing.TB) *service {
	t.Helper()
	s := &service{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if strings.HasPrefix(r.URL.Path, echoPath) {
		echo(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = json.NewEncoder(w).Encode(received{Method: r.Method, Target: r.RequestURI, Body: string(body), Header: r.Header})
}

// echo sends the request as the first message, and then each message back.
func echo(w http.ResponseWriter, r *http.Request) {
	connection, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has responded
	}
	defer func() { _ = connection.CloseNow() }()
	greeting, err := json.Marshal(received{Method: r.Method, Target: r.RequestURI, Header: r.Header})
	if err != nil {
		return
	}
	for kind, message := websocket.MessageText, greeting; err == nil; kind, message, err = connection.Read(r.Context()) {
		if err := connection.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

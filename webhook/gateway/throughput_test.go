// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	connections = 32
	rounds      = 10 // each of the three is asked in turn, so that none has the machine's better moment
)

// BenchmarkThroughput asks one server, over kept connections on loopback, for a granted /auth/forward, a refused /auth/envoy, and a
// path whose handler only answers 200: what net/http itself costs. An iteration is one request of each. The server is as
// httptest makes it, without TLS; clients and server share the machine.
func BenchmarkThroughput(b *testing.B) {
	gateways := setup{}.handler(b)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "/floor" {
			w.WriteHeader(http.StatusOK)
			return
		}
		gateways.ServeHTTP(w, r)
	}))
	b.Cleanup(server.Close)
	address := server.Listener.Addr().String()

	questions := []*question{
		{name: "floor", request: head("GET /floor", "X-API-Key: "+readToken, "X-Forwarded-Method: GET"), status: "200"},
		{name: "forward-granted", request: ask("forward", "X-API-Key: "+readToken), status: "200"},
		{name: "envoy-refused", request: ask("envoy", "X-API-Key: sq_unknown"), status: "401"},
	}
	for _, q := range questions {
		q.connect(b, address)
	}
	b.ResetTimer()
	for round := range rounds {
		for _, q := range questions {
			q.ask(b, b.N*(round+1)/rounds-b.N*round/rounds)
		}
	}
	floor := float64(b.N) / questions[0].took.Seconds()
	for _, q := range questions {
		rate := float64(b.N) / q.took.Seconds()
		b.ReportMetric(rate, q.name+"-req/s")
		if q != questions[0] {
			b.ReportMetric(rate/floor, q.name+"/floor")
		}
	}
}

// question is a request that is asked again and again on its own connections.
type question struct {
	name    string
	request string
	status  string
	clients []*client
	took    time.Duration
}

func (q *question) connect(b *testing.B, address string) {
	b.Helper()
	for range connections {
		connection, err := new(net.Dialer).DialContext(b.Context(), "tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = connection.Close() })
		client := &client{connection: connection, reader: bufio.NewReader(connection)}
		if err := client.learn(q.request, q.status); err != nil {
			b.Fatal(err)
		}
		q.clients = append(q.clients, client)
	}
}

// ask sends a number of requests, on all connections at once.
func (q *question) ask(b *testing.B, requests int) {
	b.Helper()
	var asking sync.WaitGroup
	start := time.Now()
	for i, client := range q.clients {
		share := requests*(i+1)/len(q.clients) - requests*i/len(q.clients)
		asking.Go(func() {
			for range share {
				if err := client.ask(q.request); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	asking.Wait()
	q.took += time.Since(start)
}

// client costs as little as a client can: it knows how long the answer is.
type client struct {
	connection net.Conn
	reader     *bufio.Reader
	statusLine string
	answer     []byte
}

// learn asks once, checks the status, and keeps the length of the answer.
func (c *client) learn(request, status string) error {
	if _, err := io.WriteString(c.connection, request); err != nil {
		return err
	}
	var raw strings.Builder
	response, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c.connection, &raw)), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	c.statusLine = "HTTP/1.1 " + status + " "
	c.answer = make([]byte, raw.Len())
	if !strings.HasPrefix(raw.String(), c.statusLine) {
		return errors.New("got " + response.Status + ", not " + status)
	}
	return nil
}

func (c *client) ask(request string) error {
	if _, err := io.WriteString(c.connection, request); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.reader, c.answer); err != nil {
		return err
	}
	if !strings.HasPrefix(string(c.answer[:len(c.statusLine)]), c.statusLine) {
		return errors.New("got another answer: " + string(c.answer))
	}
	return nil
}

// BenchmarkHandler is what the handler alone allocates and takes, without net/http.
func BenchmarkHandler(b *testing.B) {
	handler := setup{}.handler(b)
	for name, headers := range map[string]http.Header{
		"granted": {"X-Forwarded-Method": {"GET"}, "X-Api-Key": {readToken}},
		"refused": {"X-Forwarded-Method": {"GET"}, "X-Api-Key": {"sq_unknown"}},
	} {
		b.Run(name, func(b *testing.B) {
			request := httptest.NewRequestWithContext(b.Context(), "GET", "/auth/forward/shop", nil)
			request.Header = headers
			answer := &discarded{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(answer, request)
			}
		})
	}
}

// discarded is a ResponseWriter that keeps nothing.
type discarded struct{ header http.Header }

func (d *discarded) Header() http.Header            { return d.header }
func (d *discarded) WriteHeader(int)                {}
func (d *discarded) Write(body []byte) (int, error) { return len(body), nil }

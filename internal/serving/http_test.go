// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestHTTPServer_LongHeadersFailOneRequest(t *testing.T) {
	const raised = 128 << 10
	for _, protocol := range []string{protocolHTTP1, protocolHTTP2} {
		t.Run(protocol, func(t *testing.T) {
			server, trust := certified(t)
			r := newRunning(t, 0)
			entered, release := make(chan struct{}), make(chan struct{})
			handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					close(entered)
					<-release
				}
			})
			r.AddServer("main", "127.0.0.1:0", server, handler)
			r.engine.maxHeaderBytes = raised
			r.AddServer("raised", "127.0.0.1:0", server, handler)
			r.start()
			defer r.stop()
			transport := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: protocol == protocolHTTP2}
			defer transport.CloseIdleConnections()
			send := func(server, path, cookie string) (status int, reused bool) {
				t.Helper()
				trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
				request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet,
					"https://"+r.address(server)+path, nil)
				if err != nil {
					t.Error(err)
					return 0, false
				}
				request.Header.Set("Cookie", cookie)
				response, err := transport.RoundTrip(request)
				if err != nil {
					t.Errorf("headers of %d bytes: %v", len(cookie), err)
					return 0, false
				}
				drainBody(response)
				return response.StatusCode, reused
			}

			slow := make(chan int, 1)
			go func() { status, _ := send("main", "/slow", "short"); slow <- status }()
			<-entered
			const tooLong = http.StatusRequestHeaderFieldsTooLarge
			for _, c := range []struct {
				server, cookie string
				want           int
			}{
				{"main", strings.Repeat("c", 60<<10), 200},
				{"main", strings.Repeat("c", 80_000), tooLong},
				{"main", strings.Repeat("a=b; ", 16<<10), tooLong},
				{"main", strings.Repeat("c", 1<<20), tooLong},
				{"raised", strings.Repeat("c", 80_000), 200},
				{"raised", strings.Repeat("c", raised+20_000), tooLong},
			} {
				status, reused := send(c.server, "/", c.cookie)
				if status != c.want {
					t.Errorf("%s: the response to headers of %d bytes is %d, want %d", c.server, len(c.cookie), status, c.want)
				}
				if protocol == protocolHTTP2 && c.server == "main" && !reused {
					t.Errorf("headers of %d bytes used another connection", len(c.cookie))
				}
			}
			if status, _ := send("main", "/"+strings.Repeat("p", 80_000), ""); status != tooLong {
				t.Errorf("the response to a path of 80 000 bytes is %d", status)
			}
			close(release)
			if status := <-slow; status != 200 {
				t.Errorf("the response to the request in flight is %d", status)
			}
		})
	}
}

// Clients send requests to two replicas through a Service, which forwards connections to them in turn.
func TestHTTPServer_ClosingAgedConnectionsLosesNoRequest(t *testing.T) {
	const clients, connections = 8, 30
	for _, protocol := range []string{protocolHTTP1, protocolHTTP2} {
		t.Run(protocol, func(t *testing.T) {
			server, trust := certified(t)
			var responses [2]atomic.Int64
			var addresses [2]string
			for i := range addresses {
				r := newRunning(t, 0)
				r.engine.maxConnectionAge = 20 * time.Millisecond
				r.AddServer("main", "127.0.0.1:0", server, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { responses[i].Add(1) }))
				r.start()
				defer r.stop()
				addresses[i] = r.address("main")
			}
			var opened atomic.Int64
			service := func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, addresses[opened.Add(1)%2])
			}
			transport := &http.Transport{
				DialContext:         service,
				TLSClientConfig:     &tls.Config{RootCAs: trust.RootCAs, ServerName: "example.com"},
				ForceAttemptHTTP2:   protocol == protocolHTTP2,
				MaxIdleConnsPerHost: clients,
			}
			defer transport.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			var sending sync.WaitGroup
			for range clients {
				sending.Go(func() {
					for opened.Load() < connections || responses[0].Load() == 0 || responses[1].Load() == 0 {
						if err := post(ctx, transport, protocol); err != nil {
							t.Errorf("a request was lost: %v", err)
							return
						}
					}
				})
			}
			sending.Wait()
			t.Logf("over %d connections, the replicas sent %d and %d responses", opened.Load(), responses[0].Load(), responses[1].Load())
		})
	}
}

// post sends a request that net/http cannot retry over HTTP/1.1. Over HTTP/2 it may retry, because a GOAWAY identifies the requests that
// the server did not read.
func post(ctx context.Context, transport *http.Transport, protocol string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://service/", strings.NewReader("body"))
	if err != nil {
		return err
	}
	if protocol == protocolHTTP1 {
		request.GetBody = nil
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return err
}

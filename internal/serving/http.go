// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"squirrel.dev/apikey-operator/internal/logging"
)

// Limits for one client. Gateways keep connections open and send small requests.
const (
	readHeaderTimeout = 5 * time.Second // also of the TLS handshake
	readTimeout       = 10 * time.Second
	writeTimeout      = 10 * time.Second
	idleTimeout       = 5 * time.Minute // longer than that of gateways, which then close idle connections and lose no request

	// maxConcurrentStreams is the lowest value that HTTP/2 recommends (RFC 9113, section 6.5.2). Gateways open another connection for more.
	maxConcurrentStreams = 100

	// maxFrameBytes is the default of HTTP/2. A connection keeps a buffer of the size of the largest frame that it has read.
	maxFrameBytes = 16 << 10

	// maxBodyBytes is the limit of unread request bodies of an HTTP/2 connection. The bodies that handlers read are a few kilobytes.
	maxBodyBytes = 64 << 10

	// maxConnectionAge makes gateways reconnect. Through a Service, a connection stays with one replica, so that replicas that were added
	// later would get no requests.
	maxConnectionAge = 5 * time.Minute
)

// maxHTTP2HeaderBytes is more than gateways accept from clients and add. Above it, net/http closes the connection with all of its requests.
// Below it, only the request with the long headers fails, with 431.
const maxHTTP2HeaderBytes = HighestMaxHeaderBytes + 64<<10

// httpEngine is the engine of net/http. HTTP/2 has another server, because it has another limit of headers.
type httpEngine struct{ http1, http2 *http.Server }

func newHTTPEngine(handler http.Handler, options engineOptions) httpEngine {
	handler = closeAgedConnections(options.draining, handler)
	e := httpEngine{
		http1: newHTTPServer(handler, options),
		http2: newHTTPServer(rejectLongHeaders(options.maxHeaderBytes, handler), options),
	}
	e.http2.MaxHeaderBytes = maxHTTP2HeaderBytes
	e.http2.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          maxConcurrentStreams,
		MaxReadFrameSize:              maxFrameBytes,
		MaxReceiveBufferPerConnection: maxBodyBytes,
		MaxReceiveBufferPerStream:     maxBodyBytes,
	}
	return e
}

func newHTTPServer(handler http.Handler, options engineOptions) *http.Server {
	return &http.Server{
		Handler:                      handler,
		DisableGeneralOptionsHandler: true, // it responds to "OPTIONS *" with 200, which grants the request to a gateway
		ReadHeaderTimeout:            options.readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               options.maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(logging.Limit(options.log, clientLines).Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			below := connectionOf(c)
			below.limitAge(options.maxConnectionAge)
			return context.WithValue(ctx, connectionKey{}, below)
		},
	}
}

func (httpEngine) protocols() []string { return []string{protocolHTTP2, protocolHTTP1} }

func (e httpEngine) serve(incoming *acceptor) error {
	var serving sync.WaitGroup
	var http2Err error
	serving.Go(func() { http2Err = e.http2.Serve(incoming.http2) })
	http1Err := e.http1.Serve(incoming.others)
	serving.Wait()
	for _, err := range []error{http1Err, http2Err} {
		if !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	}
	return nil
}

func (e httpEngine) shutdown(ctx context.Context) error {
	var errs [2]error
	var closing sync.WaitGroup
	for i, server := range []*http.Server{e.http1, e.http2} {
		closing.Go(func() {
			if errs[i] = server.Shutdown(ctx); errs[i] != nil {
				_ = server.Close()
			}
		})
	}
	closing.Wait()
	return errors.Join(errs[:]...)
}

// closeAgedConnections adds "Connection: close" to responses while the process drains, and on connections that have reached their maximum
// age. Closing a connection without it may lose a request that its client is sending. Over HTTP/2, net/http sends a GOAWAY instead.
func closeAgedConnections(draining *atomic.Bool, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() || connectionFrom(r.Context()).aged.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// rejectLongHeaders rejects requests with 431 whose headers exceed the limit. The response has no body, so that it never waits for its
// client while the headers use memory.
func rejectLongHeaders(limit int, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if headerBytes(r) > limit {
			w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// headerBytes returns the approximate length of the headers of a request in HTTP/1.1.
func headerBytes(r *http.Request) int {
	size := len(r.RequestURI)
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return size
}

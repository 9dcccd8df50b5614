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
)

// What one client may cost. Gateways keep connections and send small requests.
const (
	readHeaderTimeout = 5 * time.Second // and for the TLS handshake
	readTimeout       = 10 * time.Second
	writeTimeout      = 10 * time.Second
	idleTimeout       = 5 * time.Minute // longer than gateways keep idle connections, so that they close them, and no request is lost

	// maxConcurrentStreams is the least that HTTP/2 advises (RFC 9113, section 6.5.2); gateways open another connection for more.
	maxConcurrentStreams = 100

	// maxFrameBytes is the default of HTTP/2. A connection keeps a buffer as large as the largest frame that it has read.
	maxFrameBytes = 16 << 10

	// maxBodyBytes of requests over HTTP/2 wait to be read, by connection. Those that are read at all are a few kilobytes.
	maxBodyBytes = 64 << 10

	// maxConnectionAge makes gateways connect again, without losing a request: through a Service, one stays with the replica that it
	// connected to, and would never ask those that came later.
	maxConnectionAge = 5 * time.Minute
)

// maxHTTP2HeaderBytes is more than gateways accept from their clients, and add. Beyond it net/http closes the connection, and with it all
// other requests on it. Below it, a request with too long headers is answered 431, and no other is harmed.
const maxHTTP2HeaderBytes = HighestMaxHeaderBytes + 64<<10

// httpEngine is net/http. HTTP/2 has a server of its own, for its other limit of headers.
type httpEngine struct{ http1, http2 *http.Server }

func newHTTPEngine(handler http.Handler, options engineOptions) httpEngine {
	handler = closingConnections(options.draining, handler)
	e := httpEngine{
		http1: newHTTPServer(handler, options),
		http2: newHTTPServer(refusingLongHeaders(options.maxHeaderBytes, handler), options),
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
		DisableGeneralOptionsHandler: true, // which would answer "OPTIONS *" 200, and to a gateway that means granted
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               options.maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(newBoundedLog(options.log, clientLines).Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			below := connectionOf(c)
			below.age(options.maxConnectionAge)
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

// closingConnections asks clients, with an answer, to give up their connection: when the process is draining, and when the connection has
// reached its age. A connection that is closed otherwise may lose the request that its client sends at that moment. Over HTTP/2, net/http
// makes a GOAWAY of it.
func closingConnections(draining *atomic.Bool, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() || connectionFrom(r.Context()).aged.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// refusingLongHeaders answers requests 431 whose headers are longer than HTTP/1.1 would allow. The answer has no body, so that it never
// waits for its client, while the headers take memory.
func refusingLongHeaders(limit int, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if headerBytes(r) > limit {
			w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// headerBytes is about how long the headers of a request would be in HTTP/1.1.
func headerBytes(r *http.Request) int {
	size := len(r.RequestURI)
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return size
}

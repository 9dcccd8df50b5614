// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework"
)

// proxy is an HTTP proxy between a process and the API server, for faults of requests and responses.
type proxy struct {
	// config leads a process through the proxy.
	config *rest.Config

	server       *httptest.Server
	disconnected atomic.Bool
}

// startProxy starts a proxy that forwards requests with the credentials of upstream. If intercept is not nil, it wraps the handler that
// forwards. A panic with http.ErrAbortHandler closes the client's connection. A write has been read as a whole and does not end with its
// client, so that an intercept can forward it at any time. An intercept that waits for something must give up when t.Context() is done.
func startProxy(t testing.TB, upstream *rest.Config, intercept func(forward http.Handler) http.Handler) *proxy {
	t.Helper()
	target, err := url.Parse(upstream.Host)
	framework.Must(t, err)
	transport, err := rest.TransportFor(upstream)
	framework.Must(t, err)
	var handler http.Handler = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,                         // for watches
		ErrorLog:      log.New(io.Discard, "", 0), // the client gets the error
	}
	if intercept != nil {
		handler = intercept(handler)
	}
	p := &proxy{}
	p.server = httptest.NewServer(p.abortWhileDisconnected(detachWrites(handler)))
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	p.config = &rest.Config{Host: p.server.URL, QPS: -1}
	return p
}

// disconnect closes all connections, including those of watches, and aborts all requests until reconnect.
func (p *proxy) disconnect() {
	p.disconnected.Store(true)
	p.server.CloseClientConnections()
}

func (p *proxy) reconnect() { p.disconnected.Store(false) }

func (p *proxy) abortWhileDisconnected(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.disconnected.Load() {
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	})
}

// detachWrites keeps the requests that write running when their client disconnects.
func detachWrites(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 10*framework.Timeout)
			defer cancel()
			r = r.WithContext(ctx)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		handler.ServeHTTP(w, r)
	})
}

// respondError sends the response of an API server that refuses a request.
func respondError(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	body, marshalErr := json.Marshal(status)
	if marshalErr != nil {
		panic(marshalErr)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(body)
}

// hangWatches makes the watches that exist when inject is called hang: their connections stay open, and later watches work.
func hangWatches(f *fixture) (config *rest.Config, inject func()) {
	var injected atomic.Bool
	ended := f.Context()
	proxy := startProxy(f, f.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("watch") && !injected.Load() {
				w = &lossyWriter{ResponseWriter: w, drops: injected.Load}
			}
			r, cancel := cancelWith(ended, r)
			defer cancel()
			forward.ServeHTTP(w, r)
		})
	})
	return proxy.config, func() { injected.Store(true) }
}

// cancelWith returns a request that is also canceled when ctx is done.
func cancelWith(ctx context.Context, r *http.Request) (canceled *http.Request, cancel func()) {
	limit, cancelLimit := context.WithCancel(r.Context())
	stop := context.AfterFunc(ctx, cancelLimit)
	return r.WithContext(limit), func() {
		stop()
		cancelLimit()
	}
}

// lossyWriter drops what is written to it while drops returns true.
type lossyWriter struct {
	http.ResponseWriter
	drops func() bool
}

func (l *lossyWriter) Write(p []byte) (int, error) {
	if l.drops() {
		return len(p), nil
	}
	return l.ResponseWriter.Write(p)
}

func (l *lossyWriter) Unwrap() http.ResponseWriter { return l.ResponseWriter }

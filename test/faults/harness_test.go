// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faults_test holds the built program to its promises while what it relies on fails.
package faults_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// poll is how often it is looked for.
	poll = 20 * time.Millisecond
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	testenv.Main(m)
}

// startAuthenticator runs an authenticator over plain HTTP.
func startAuthenticator(t testing.TB, config *rest.Config, args ...string) *operator.Process {
	t.Helper()
	return operator.StartAuthenticator(t, config, append([]string{"--plaintext"}, args...)...)
}

// proxy stands between a process and the API server.
type proxy struct {
	// config leads a process through the proxy.
	config *rest.Config

	server *httptest.Server
	broken atomic.Bool
}

// startProxy starts a proxy that forwards calls as whom upstream says. An intercept that is not nil is given the handler that forwards,
// and answers in its place; a panic with http.ErrAbortHandler breaks the caller's connection. A call that writes is whole and outlives
// its caller, so that it can be forwarded at any time; one that waits for something gives up when t.Context() is done.
func startProxy(t testing.TB, upstream *rest.Config, intercept func(forward http.Handler) http.Handler) *proxy {
	t.Helper()
	target, err := url.Parse(upstream.Host)
	framework.Must(t, err)
	transport, err := rest.TransportFor(upstream)
	framework.Must(t, err)
	var handler http.Handler = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,                         // watches
		ErrorLog:      log.New(io.Discard, "", 0), // the caller is told
	}
	if intercept != nil {
		handler = intercept(handler)
	}
	p := &proxy{}
	p.server = httptest.NewServer(p.unlessBroken(outlivingItsCaller(handler)))
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	p.config = &rest.Config{Host: p.server.URL, QPS: -1}
	return p
}

// breakOff ends all calls, watches too, and lets no other through until mend.
func (p *proxy) breakOff() {
	p.broken.Store(true)
	p.server.CloseClientConnections()
}

func (p *proxy) mend() { p.broken.Store(false) }

func (p *proxy) unlessBroken(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.broken.Load() {
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	})
}

// outlivingItsCaller lets a handler carry out a call that writes whatever becomes of its caller.
func outlivingItsCaller(handler http.Handler) http.Handler {
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

// await waits for what a channel tells by being closed.
func await(t testing.TB, what string, told <-chan struct{}) {
	t.Helper()
	awaitWithin(t, framework.Timeout, what, told)
}

func awaitWithin(t testing.TB, bound time.Duration, what string, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
	case <-time.After(bound):
		t.Fatalf("waited %s in vain until %s", bound, what)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package load sends requests at a constant rate, however long the responses take, and records every response.
package load

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// Request is a request that a client sends to a service.
type Request struct {
	// Method of the request.
	Method string
	// Key is the API key; empty is none.
	Key string
	// NewConnection sends the request on a new connection instead of an existing one.
	NewConnection bool
}

// Response is the response to a Request.
type Response struct {
	// Status of the response, in HTTP.
	Status int
	// Retried reports that the request was sent more than once, because its connection ended and the client could not know whether the
	// server had processed it.
	Retried bool
	// Protocol of the response.
	Protocol string
}

// Sender sends a request. It returns an error if it gets no response.
type Sender func(ctx context.Context, request Request) (Response, error)

// Keys are the API keys of the requests.
type Keys struct {
	// Valid returns a key that may read, but not write. It is called for each request.
	Valid func() string
	// Unknown is not the token of any key.
	Unknown string
}

// requestTimeout is long, because the test machine may be slow. The latencies show that.
const requestTimeout = 30 * time.Second

// kind is a kind of request.
type kind struct {
	name   string
	valid  bool // must be granted; requests of all other kinds must be denied
	method string
	key    func(Keys) string
}

var (
	read       = kind{name: "read", valid: true, method: http.MethodGet, key: func(k Keys) string { return k.Valid() }}
	write      = kind{name: "write", method: http.MethodPost, key: func(k Keys) string { return k.Valid() }}
	unknownKey = kind{name: "unknown key", method: http.MethodGet, key: func(k Keys) string { return k.Unknown }}
	noKey      = kind{name: "no key", method: http.MethodGet, key: func(Keys) string { return "" }}

	// mix is the repeated sequence of kinds.
	mix = []kind{read, read, unknownKey, read, read, write, read, read, noKey, read}
)

// newConnectionEvery is the interval, in requests, of those on new connections. It is coprime to the length of mix, so that each kind of
// request uses new connections.
const newConnectionEvery = 7

func send(ctx context.Context, sender Sender, request Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return sender(ctx, request)
}

// Run sends rate requests per second until the context is done, and returns after the last response.
func Run(ctx context.Context, rate int, keys Keys, sender Sender, recorder *Recorder) {
	var sending sync.WaitGroup
	defer sending.Wait()
	requestCtx := context.WithoutCancel(ctx)
	start := time.Now()
	for i := range 1 << 62 {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		kind, newConnection := mix[i%len(mix)], i%newConnectionEvery == 0
		pending := recorder.start(kind, newConnection, due)
		sending.Go(func() {
			request := Request{Method: kind.method, Key: kind.key(keys), NewConnection: newConnection}
			response, err := send(requestCtx, sender, request)
			if err != nil { // a client retries once
				pending.connectionFailed(err)
				request.NewConnection = true
				response, err = send(requestCtx, sender, request)
				response.Retried = true
			}
			pending.finish(response, err)
		})
	}
}

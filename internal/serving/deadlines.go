// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"io"
	"net/http"
	"time"
)

const (
	// maxPause is how long a client may pause while it sends a request body or receives a response.
	maxPause = writeTimeout

	// minRate is the lowest average rate, in bytes per second, at which a client may send a body or receive a response. A client that pauses
	// for just less than maxPause between a few bytes would keep a response in memory for days.
	minRate = 1 << 10

	// chunkBytes is the length of the parts in which a response is written. The deadline moves with each part.
	chunkBytes = 4 << 10
)

// AllowSlowClients returns a handler that does not cut off clients on slow connections. The servers of this package otherwise limit the
// time of a whole request or response. A client may pause for maxPause, and its average rate may not be less than minRate.
func AllowSlowClients(handler http.Handler) http.Handler {
	return allowSlowClients(handler, time.Now)
}

func allowSlowClients(handler http.Handler, now func() time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection := http.NewResponseController(w)
		received := &transfer{now: now, setDeadline: connection.SetReadDeadline}
		sent := &transfer{now: now, setDeadline: connection.SetWriteDeadline}
		slow := *r
		slow.Body = &slowBody{ReadCloser: r.Body, transfer: received}
		handler.ServeHTTP(&slowWriter{ResponseWriter: w, transfer: sent}, &slow)
	})
}

// transfer moves a deadline of a connection while bytes flow in one direction.
type transfer struct {
	now         func() time.Time
	setDeadline func(time.Time) error
	start       time.Time
	bytes       int64
}

// extend sets the deadline of the next read or write.
func (t *transfer) extend() {
	now := t.now()
	if t.start.IsZero() {
		t.start = now
	}
	deadline := now.Add(maxPause)
	slowest := t.start.Add(maxPause + time.Duration(t.bytes)*time.Second/minRate)
	if slowest.Before(deadline) {
		deadline = slowest
	}
	_ = t.setDeadline(deadline) // fails for a connection that is closed; the read or write then fails too
}

// slowBody is a request body whose deadline moves.
type slowBody struct {
	io.ReadCloser
	*transfer
}

func (b *slowBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	b.bytes += int64(n)
	return n, err
}

// slowWriter is a ResponseWriter whose deadline moves.
type slowWriter struct {
	http.ResponseWriter
	*transfer
}

// Unwrap is for [http.ResponseController].
func (w *slowWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *slowWriter) Write(content []byte) (written int, err error) {
	for {
		chunk := content[written:min(written+chunkBytes, len(content))]
		w.extend()
		n, err := w.ResponseWriter.Write(chunk)
		written += n
		w.bytes += int64(n)
		if err != nil || written == len(content) {
			return written, err
		}
	}
}

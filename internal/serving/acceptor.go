// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"squirrel.dev/apikey-operator/internal/logging"
)

// Protocol names of TLS ALPN (RFC 7301).
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// acceptRetryDelay is the pause after a failed accept, for example because the process has no file descriptor left.
const acceptRetryDelay = 5 * time.Millisecond

// Log lines that are written at once; then one a minute.
const (
	clientLines = 10 // about single clients, which fail for different reasons
	limitLines  = 1  // about a limit
)

// acceptor accepts the connections of one address: it admits them to the pool, performs the TLS handshake, and passes them to the engine.
// net/http and gRPC report failed handshakes as text or not at all, so the acceptor performs the handshake itself.
type acceptor struct {
	net.Listener
	server *server
	log    *slog.Logger // about single clients
	limits *slog.Logger // about limits

	// The engine closes these at its shutdown.
	http2  *queueListener // connections that negotiated HTTP/2
	others *queueListener // HTTP/1, and unencrypted connections
}

func newAcceptor(listener net.Listener, s *server, log *slog.Logger) *acceptor {
	return &acceptor{
		Listener: listener,
		server:   s,
		log:      logging.Limit(log, clientLines),
		limits:   logging.Limit(log, limitLines),
		http2:    newQueueListener(listener.Addr()),
		others:   newQueueListener(listener.Addr()),
	}
}

// run accepts connections until the acceptor is closed.
func (a *acceptor) run() {
	for {
		accepted, err := a.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			a.limits.Warn("Cannot accept a connection: closing one without a granted request", "err", err)
			a.server.pool.evict(1)
			time.Sleep(acceptRetryDelay)
		default:
			a.admit(accepted.(*net.TCPConn))
		}
	}
}

// admit passes a connection to the engine, unless the limit is reached.
func (a *acceptor) admit(accepted *net.TCPConn) {
	c, full := a.server.pool.admit(accepted, a.server.metrics)
	if c == nil {
		a.server.metrics.rejected.Inc()
		_ = accepted.Close()
		a.limits.Warn("Rejected a connection, because connections with granted requests use the whole limit: "+
			"add replicas, or raise the memory limit or --max-connections", "limit", a.server.pool.limit)
		return
	}
	if full {
		a.limits.Warn("The limit of connections is reached: each new connection replaces the longest idle one without a granted request",
			"limit", a.server.pool.limit)
	}
	if a.server.tls == nil {
		a.others.deliver(c)
	} else {
		go a.handshake(c)
	}
}

// handshake performs the TLS handshake, and passes the connection to the engine.
func (a *acceptor) handshake(c *connection) {
	defer a.recoverHandshake(c)
	encrypted := tls.Server(c, a.server.tls)
	_ = c.SetDeadline(time.Now().Add(a.server.readHeaderTimeout))
	if err := encrypted.HandshakeContext(context.Background()); err != nil {
		a.logHandshakeError(c, err)
		respondToPlaintext(err)
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	if encrypted.ConnectionState().NegotiatedProtocol == protocolHTTP2 {
		a.http2.deliver(encrypted)
	} else {
		a.others.deliver(encrypted)
	}
}

// recoverHandshake closes the connection of a handshake that panicked, as net/http does for requests: a handshake parses the input of
// clients.
func (a *acceptor) recoverHandshake(c *connection) {
	if problem := recover(); problem != nil {
		a.log.Error("A TLS handshake panicked", "client", c.RemoteAddr().String(), "panic", fmt.Sprint(problem), "stack", string(debug.Stack()))
		_ = c.Close()
	}
}

// logHandshakeError logs why a handshake failed. If the connection was closed, as by port checks and evictions, it logs at debug level.
func (a *acceptor) logHandshakeError(c *connection, err error) {
	level := slog.LevelWarn
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		level = slog.LevelDebug
	}
	a.log.Log(context.Background(), level, "A TLS handshake failed", "client", c.RemoteAddr().String(), "err", err)
}

// respondToPlaintext responds to a client that sent an HTTP request without TLS.
func respondToPlaintext(handshake error) {
	var record tls.RecordHeaderError
	if !errors.As(handshake, &record) || record.Conn == nil || !startsWithMethod(record.RecordHeader) {
		return
	}
	_, _ = io.WriteString(record.Conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"+
		"This port requires TLS: use https://.\n")
}

// startsWithMethod distinguishes an HTTP request line from a TLS record, whose first byte is a small number.
func startsWithMethod(header [5]byte) bool {
	return 'A' <= header[0] && header[0] <= 'Z'
}

// queueListener is the listener of an engine. It accepts the connections that the acceptor delivers.
type queueListener struct {
	address net.Addr
	ready   chan net.Conn
	closed  chan struct{}
	close   sync.Once
}

func newQueueListener(address net.Addr) *queueListener {
	return &queueListener{address: address, ready: make(chan net.Conn), closed: make(chan struct{})}
}

// deliver passes a connection to the engine, or closes it if the listener is closed.
func (l *queueListener) deliver(c net.Conn) {
	select {
	case l.ready <- c:
	case <-l.closed:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (l *queueListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *queueListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *queueListener) Addr() net.Addr { return l.address }

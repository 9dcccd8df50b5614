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
)

// The protocols that TLS negotiates (RFC 7301).
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// acceptRetryDelay is how long the acceptor waits when the system gives it no connection, for want of file descriptors or memory.
const acceptRetryDelay = 5 * time.Millisecond

// acceptor opens the connections of one address: it takes them into the pool, makes the TLS handshake, and hands them to the engine. The
// handshake is made here, because net/http and gRPC can say only in text, or not at all, why one failed.
type acceptor struct {
	net.Listener
	pool    *pool
	metrics *connectionMetrics
	tls     *tls.Config  // nil is without TLS
	log     *slog.Logger // of what clients do
	limits  *slog.Logger // of what comes of their number

	// The engine closes these, when it is shut down.
	http2  *inlet // what negotiated HTTP/2
	others *inlet // all else: HTTP/1, and what is not encrypted
}

func newAcceptor(listener net.Listener, s *server, log *slog.Logger) *acceptor {
	return &acceptor{
		Listener: listener,
		pool:     s.pool,
		metrics:  s.metrics,
		tls:      s.tls,
		log:      newBoundedLog(log, clientLines),
		limits:   newBoundedLog(log, limitLines),
		http2:    newInlet(listener.Addr()),
		others:   newInlet(listener.Addr()),
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
			a.limits.Warn("the system gives no connection, so one without a granted request is closed", "err", err)
			a.pool.evict(1)
			time.Sleep(acceptRetryDelay)
		default:
			a.open(accepted.(*net.TCPConn))
		}
	}
}

func (a *acceptor) open(accepted *net.TCPConn) {
	c, full := a.pool.admit(accepted, a.metrics)
	if c == nil {
		_ = accepted.Close()
		a.metrics.rejected.Inc()
		a.limits.Warn("refused a connection, because the limit is reached by connections with granted requests: "+
			"add replicas, or raise the memory limit or --max-connections", "limit", a.pool.limit)
		return
	}
	if full {
		a.limits.Warn("the limit of connections is reached: each new one closes the one that was silent for longest without a granted request",
			"limit", a.pool.limit)
	}
	if a.tls == nil {
		a.others.hand(c)
	} else {
		go a.encrypt(c)
	}
}

// encrypt makes the TLS handshake, which is cut off when it takes too long.
func (a *acceptor) encrypt(c *connection) {
	defer a.surviveHandshake(c)
	encrypted := tls.Server(c, a.tls)
	_ = c.SetDeadline(time.Now().Add(readHeaderTimeout))
	if err := encrypted.HandshakeContext(context.Background()); err != nil {
		a.logHandshake(c, err)
		answerPlaintext(err)
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	if encrypted.ConnectionState().NegotiatedProtocol == protocolHTTP2 {
		a.http2.hand(encrypted)
	} else {
		a.others.hand(encrypted)
	}
}

// surviveHandshake closes the connection of a handshake that panicked, as net/http does for requests: clients write what it parses.
func (a *acceptor) surviveHandshake(c *connection) {
	if problem := recover(); problem != nil {
		a.log.Error("a TLS handshake panicked", "client", c.RemoteAddr().String(), "panic", fmt.Sprint(problem), "stack", string(debug.Stack()))
		_ = c.Close()
	}
}

// logHandshake logs why a handshake failed. Port checks close their connection in the middle of it, and the pool closes connections that
// it evicts: neither is worth a warning.
func (a *acceptor) logHandshake(c *connection, err error) {
	level := slog.LevelWarn
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		level = slog.LevelDebug
	}
	a.log.Log(context.Background(), level, "a TLS handshake failed", "client", c.RemoteAddr().String(), "err", err)
}

// answerPlaintext answers a client that speaks HTTP without TLS.
func answerPlaintext(handshake error) {
	var record tls.RecordHeaderError
	if !errors.As(handshake, &record) || record.Conn == nil || !startsWithMethod(record.RecordHeader) {
		return
	}
	_, _ = io.WriteString(record.Conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"+
		"This port speaks TLS: ask by https://.\n")
}

// startsWithMethod distinguishes an HTTP request line from a TLS record, whose first byte is a small number.
func startsWithMethod(header [5]byte) bool {
	return 'A' <= header[0] && header[0] <= 'Z'
}

// inlet is the listener that an engine serves.
type inlet struct {
	address net.Addr
	ready   chan net.Conn
	closed  chan struct{}
	close   sync.Once
}

func newInlet(address net.Addr) *inlet {
	return &inlet{address: address, ready: make(chan net.Conn), closed: make(chan struct{})}
}

// hand returns when the engine has taken the connection, or takes no more.
func (i *inlet) hand(c net.Conn) {
	select {
	case i.ready <- c:
	case <-i.closed:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (i *inlet) Accept() (net.Conn, error) {
	select {
	case c := <-i.ready:
		return c, nil
	case <-i.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (i *inlet) Close() error {
	i.close.Do(func() { close(i.closed) })
	return nil
}

// Addr implements net.Listener.
func (i *inlet) Addr() net.Addr { return i.address }

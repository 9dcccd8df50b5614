// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"squirrel.dev/apikey-operator/test/framework"
)

// granting grants requests for /granted, for the namespace in the query.
var granting = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/"+granted {
		ProtectConnection(r.Context(), r.URL.RawQuery)
	}
	_, _ = io.WriteString(w, "answered")
})

// client is a client of HTTP or gRPC.
type client struct {
	t      *testing.T
	send   func(text string) error
	reused bool // whether the last request used the connection of the one before
}

func (c *client) mustSend(text string) {
	c.t.Helper()
	framework.Must(c.t, c.send(text))
}

// http1Client returns a client with one connection. The transport of net/http closes a connection if the machine is too busy to report
// within 50 ms that a request is written.
func http1Client(t *testing.T, address string, trust *tls.Config) *client {
	t.Helper()
	var connection net.Conn
	var responses *bufio.Reader
	c := &client{t: t}
	c.send = func(text string) error {
		if c.reused = connection != nil; !c.reused {
			connection = dialIdle(t, address, trust, true)
			responses = bufio.NewReader(connection)
		}
		_ = connection.SetDeadline(time.Now().Add(timeout))
		if _, err := io.WriteString(connection, "GET /"+text+" HTTP/1.1\r\nHost: main\r\n\r\n"); err != nil {
			return err
		}
		response, err := http.ReadResponse(responses, nil)
		if err != nil {
			return err
		}
		drainBody(response)
		return nil
	}
	return c
}

func http2Client(t *testing.T, address string, trust *tls.Config) *client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	c := &client{t: t}
	c.send = func(text string) error {
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { c.reused = info.Reused }}
		ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(t.Context(), trace), timeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/"+text, nil)
		if err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		drainBody(response)
		return nil
	}
	return c
}

func grpcClient(t *testing.T, address string, trust *tls.Config) *client {
	t.Helper()
	connection := dial(t, address, credentials.NewTLS(trust))
	var last net.Addr
	c := &client{t: t}
	c.send = func(text string) error {
		var server peer.Peer
		_, err := echo(t.Context(), connection, text, grpc.Peer(&server))
		c.reused = last != nil && server.LocalAddr != nil && last.String() == server.LocalAddr.String()
		last = server.LocalAddr
		return err
	}
	return c
}

// dialIdle opens a connection, and leaves it idle. When it returns, the server has read all that the connection sends: in TLS 1.2, unlike
// 1.3, the server sends the last message of a handshake.
func dialIdle(t *testing.T, address string, config *tls.Config, handshake bool) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if !handshake {
		return c
	}
	config = config.Clone()
	config.ServerName, config.MaxVersion = "example.com", tls.VersionTLS12
	encrypted := tls.Client(c, config)
	if err := encrypted.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return encrypted
}

// assertClosed waits until the server has closed a connection.
func assertClosed(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server did not close the connection")
	}
}

func number(t *testing.T, metric prometheus.Metric) float64 {
	t.Helper()
	var written dto.Metric
	if err := metric.Write(&written); err != nil {
		t.Fatal(err)
	}
	return written.GetCounter().GetValue() + written.GetGauge().GetValue()
}

func TestInvariant10_FullPoolEvictsIdleConnections(t *testing.T) {
	const limit, flood = 6, 10
	for name, c := range map[string]struct {
		server    string
		newClient func(t *testing.T, address string, trust *tls.Config) *client
		protocols []string
		handshake bool
	}{
		"HTTP/1.1":              {"main", http1Client, []string{protocolHTTP1}, true},
		"HTTP/2":                {"main", http2Client, []string{protocolHTTP2}, true},
		"gRPC":                  {"grpc", grpcClient, []string{protocolHTTP2}, true},
		"HTTP, no handshake":    {"main", http1Client, nil, false},
		"gRPC, no handshake":    {"grpc", grpcClient, nil, false},
		"HTTP/1.1 without ALPN": {"main", http1Client, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			server, trust := certified(t)
			r := newRunningWith(t, Options{MaxConnections: limit})
			r.engine.readHeaderTimeout = time.Hour // the test counts evictions, so no timeout may close idle connections
			r.AddServer("main", "127.0.0.1:0", server, granting)
			r.AddGRPCServer("grpc", "127.0.0.1:0", server, alwaysReady, echoService)
			r.start()
			defer r.stop()
			address := r.address(c.server)
			protected := c.newClient(t, address, trust)
			protected.mustSend(granted)

			var idle []net.Conn
			config := trust.Clone()
			config.NextProtos = c.protocols
			for range flood {
				idle = append(idle, dialIdle(t, address, config, c.handshake))
			}
			for _, evicted := range idle[:flood-limit+1] {
				assertClosed(t, evicted)
			}
			protected.mustSend("hello")
			if !protected.reused {
				t.Error("the connection with a granted request was closed")
			}
			second := c.newClient(t, address, trust)
			second.mustSend(granted)
			assertClosed(t, idle[flood-limit+1])

			pool, metrics := r.clients, r.connectionMetrics(c.server)
			pool.mu.Lock()
			open, evictable := pool.open, pool.evictable.Len()
			pool.mu.Unlock()
			if open != limit || evictable != limit-2 {
				t.Errorf("%d connections are open, %d of them without a granted request; want %d and %d", open, evictable, limit, limit-2)
			}
			if got := number(t, metrics.open); got != limit {
				t.Errorf("the metrics count %v open connections, want %d", got, limit)
			}
			if got := number(t, metrics.evicted); got != flood-limit+2 {
				t.Errorf("the metrics count %v evicted connections, want %d", got, flood-limit+2)
			}
		})
	}
}

func TestInvariant10_ReceivedDataDelaysEviction(t *testing.T) {
	r := newRunningWith(t, Options{MaxConnections: 2})
	r.AddServer("main", "127.0.0.1:0", nil, granting)
	r.start()
	defer r.stop()
	address := r.address("main")
	busy, idle := dialIdle(t, address, nil, false), dialIdle(t, address, nil, false)
	if _, err := io.WriteString(busy, "GET / HTTP/1.1\r\nHost: main\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if status, err := bufio.NewReader(busy).ReadString('\n'); err != nil || status != "HTTP/1.1 200 OK\r\n" {
		t.Fatal(status, err)
	}
	dialIdle(t, address, nil, false)
	assertClosed(t, idle)
}

func TestFullPoolRejectsConnectionsIfAllAreProtected(t *testing.T) {
	server, trust := certified(t)
	r := newRunningWith(t, Options{MaxConnections: 2})
	r.AddServer("main", "127.0.0.1:0", server, granting)
	r.AddHealth("127.0.0.1:0", alwaysReady)
	r.start()
	defer r.stop()
	address := r.address("main")
	first, second := http1Client(t, address, trust), http2Client(t, address, trust)
	first.mustSend(granted + "?shop")
	second.mustSend(granted + "?bank")
	for range 3 {
		assertClosed(t, dialIdle(t, address, nil, false))
	}
	first.mustSend("hello")
	second.mustSend("hello")
	if !first.reused || !second.reused {
		t.Error("a connection with a granted request was closed")
	}
	assertGet(t, "http://"+r.address("health")+"/readyz", 200, "ok\n")
	if got := number(t, r.connectionMetrics("main").rejected); got != 3 {
		t.Errorf("the metrics count %v rejected connections, want 3", got)
	}
	lines := r.lines.of("Rejected a connection, because connections with granted requests use the whole limit: " +
		"add replicas, or raise the memory limit or --max-connections")
	if len(lines) != 1 {
		t.Errorf("the rejection was logged %d times, want once", len(lines))
	}
}

func TestInvariant10_NamespaceProtectsNoMoreThanHalfOfTheConnections(t *testing.T) {
	const limit = 4
	server, trust := certified(t)
	r := newRunningWith(t, Options{MaxConnections: limit})
	r.AddServer("main", "127.0.0.1:0", server, granting)
	r.start()
	defer r.stop()
	address := r.address("main")
	var ofShop [limit]*client
	for i := range ofShop {
		ofShop[i] = http1Client(t, address, trust)
		ofShop[i].mustSend(granted + "?shop")
	}
	ofBank := [limit / 2]*client{http1Client(t, address, trust), http2Client(t, address, trust)}
	for _, c := range ofBank {
		c.mustSend(granted + "?bank")
	}
	assertClosed(t, dialIdle(t, address, nil, false))
	for _, c := range append(ofShop[:limit/2], ofBank[:]...) {
		c.mustSend("hello")
		if !c.reused {
			t.Error("a protected connection was closed")
		}
	}
	if got := number(t, r.connectionMetrics("main").evicted); got != limit/2 {
		t.Errorf("the metrics count %v evicted connections, want %d", got, limit/2)
	}
}

func TestClosedConnectionsLeaveThePool(t *testing.T) {
	r := newRunningWith(t, Options{MaxConnections: 1})
	r.AddServer("main", "127.0.0.1:0", nil, granting)
	r.start()
	defer r.stop()
	for range 10 {
		assertGet(t, "http://"+r.address("main")+"/"+granted, 200, "answered")
		framework.Eventually(t, "the connection is closed", func() bool { return number(t, r.connectionMetrics("main").open) == 0 })
	}
}

func TestMaxConnectionsIn(t *testing.T) {
	for _, c := range []struct {
		limit       int64
		headerBytes int
		want        int
	}{
		{math.MaxInt64, DefaultMaxHeaderBytes, defaultMaxConnections},
		{512 << 20 * 9 / 10, DefaultMaxHeaderBytes, 1902},
		{512 << 20 * 9 / 10, HighestMaxHeaderBytes, 217},
		{1 << 20, HighestMaxHeaderBytes, 1},
	} {
		if got := maxConnectionsIn(c.limit, c.headerBytes); got != c.want {
			t.Errorf("a memory limit of %d and headers of %d bytes allow %d connections, want %d", c.limit, c.headerBytes, got, c.want)
		}
	}
}

func TestInvariant10_LowMemoryEvictsConnectionsWithoutGrantedRequests(t *testing.T) {
	const limit = 128 << 20
	runtime.GC() // collects the memory of a previous run
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(limit))
	server, trust := certified(t)
	r := newRunning(t, 0)
	r.AddServer("main", "127.0.0.1:0", server, granting)
	r.start()
	defer r.stop()
	address := r.address("main")
	protected := http2Client(t, address, trust)
	protected.mustSend(granted)
	idle := []net.Conn{dialIdle(t, address, nil, false), dialIdle(t, address, trust, true)}

	used := make([]byte, limit*8/10)
	runtime.GC()
	for _, evicted := range idle {
		assertClosed(t, evicted)
	}
	runtime.KeepAlive(used)
	protected.mustSend("hello")
	if !protected.reused {
		t.Error("the connection with a granted request was closed")
	}
}

func TestProtectConnection_DoesNotAllocate(t *testing.T) {
	c := &connection{pool: newPool(1)}
	for name, ctx := range map[string]context.Context{
		"HTTP":       context.WithValue(t.Context(), connectionKey{}, c),
		"gRPC":       peer.NewContext(t.Context(), &peer.Peer{AuthInfo: connectionInfo{c}}),
		"no request": t.Context(),
	} {
		if allocations := testing.AllocsPerRun(100, func() { ProtectConnection(ctx, "shop") }); allocations > 0 {
			t.Errorf("%s: it allocates %v times", name, allocations)
		}
	}
	if !c.protected.Load() {
		t.Error("the connection is not protected")
	}
}

func TestHandshakeErrors_PortChecksAreDebugLinesAndWarningsAreLimited(t *testing.T) {
	const flood = clientLines + 10
	for _, name := range []string{"main", "grpc"} {
		t.Run(name, func(t *testing.T) {
			server, _ := certified(t)
			r := newRunning(t, 0)
			r.AddServer("main", "127.0.0.1:0", server, responding)
			r.AddGRPCServer("grpc", "127.0.0.1:0", server, alwaysReady, echoService)
			r.start()
			defer r.stop()
			address := r.address(name)
			handshakes := func(level slog.Level) (lines []logLine) {
				for _, line := range r.lines.of("A TLS handshake failed") {
					if line.Level == level.String() {
						lines = append(lines, line)
					}
				}
				return lines
			}

			_ = dialIdle(t, address, nil, false).Close()
			reset := dialIdle(t, address, nil, false).(*net.TCPConn)
			_ = reset.SetLinger(0)
			_ = reset.Close()
			partial := dialIdle(t, address, nil, false)
			if _, err := partial.Write([]byte{22, 3}); err != nil {
				t.Fatal(err)
			}
			_ = partial.Close()
			framework.Eventually(t, "three debug lines are logged", func() bool { return len(handshakes(slog.LevelDebug)) == 3 })

			for range flood {
				c := tls.Client(dialIdle(t, address, nil, false), &tls.Config{ServerName: "example.com"}) // without the server's authority
				if err := c.HandshakeContext(t.Context()); err == nil {
					t.Fatal("the handshake succeeded without the server's authority")
				}
			}
			framework.Eventually(t, "the limit of warnings is logged", func() bool { return len(handshakes(slog.LevelWarn)) == clientLines })
			if line := handshakes(slog.LevelWarn)[0]; line.Err != "remote error: tls: bad certificate" || line.Server != name {
				t.Errorf("the line is %+v", line)
			}
		})
	}
}

func TestHandshake_PanicClosesOneConnection(t *testing.T) {
	server, trust := certified(t)
	var panicked atomic.Bool
	certificate := server.Certificates[0]
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if !panicked.Swap(true) {
			panic("broken")
		}
		return &tls.Config{Certificates: []tls.Certificate{certificate}}, nil
	}
	r := newRunning(t, 0)
	r.AddServer("main", "127.0.0.1:0", server, responding)
	r.start()
	defer r.stop()
	address := r.address("main")
	broken := tls.Client(dialIdle(t, address, nil, false), &tls.Config{RootCAs: trust.RootCAs, ServerName: "example.com"})
	if err := broken.HandshakeContext(t.Context()); err == nil {
		t.Error("the handshake succeeded")
	}
	http1Client(t, address, trust).mustSend("hello")
	if lines := r.lines.of("A TLS handshake panicked"); len(lines) != 1 || lines[0].Level != "ERROR" {
		t.Errorf("logged %+v, want one error", lines)
	}
	framework.Eventually(t, "the connection is closed", func() bool { return number(t, r.connectionMetrics("main").open) == 1 })
}

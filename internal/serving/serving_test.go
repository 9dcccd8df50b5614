// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/test/framework"
)

// timeout limits all waits.
const timeout = 10 * time.Second

// running is a Process under test. A test calls newRunning, the Add methods, start, stop and wait.
type running struct {
	*Process
	t     *testing.T
	lines *logLines
	stop  context.CancelFunc
	ended chan error
}

// connectionMetrics returns the metrics of the server with this name.
func (r *running) connectionMetrics(name string) *connectionMetrics {
	r.t.Helper()
	at := slices.IndexFunc(r.servers, func(s *server) bool { return s.name == name })
	if at < 0 {
		r.t.Fatalf("no server has the name %q", name)
	}
	return r.servers[at].metrics
}

func newRunning(t *testing.T, shutdownDelay time.Duration) *running {
	t.Helper()
	return newRunningWith(t, Options{ShutdownDelay: shutdownDelay})
}

// newRunningWith sets the log.
func newRunningWith(t *testing.T, options Options) *running {
	t.Helper()
	lines := &logLines{addresses: map[string]chan string{}}
	options.Log = slog.New(slog.NewJSONHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return &running{Process: NewProcess(options), t: t, lines: lines, ended: make(chan error, 1)}
}

// start runs the process until stop is called.
func (r *running) start() {
	ctx, stop := context.WithCancel(r.t.Context())
	r.stop = stop
	go func() { r.ended <- r.Run(ctx) }()
}

// wait returns what Run returned.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(timeout):
		r.t.Fatal("the process did not stop")
		return nil
	}
}

// address returns the address of a server, which it reads from the log.
func (r *running) address(name string) string {
	r.t.Helper()
	select {
	case address := <-r.lines.address(name):
		r.lines.address(name) <- address
		return address
	case <-time.After(timeout):
		r.t.Fatalf("the server %q did not log its address", name)
		return ""
	}
}

// logLines are the lines of a log, and the addresses in them.
type logLines struct {
	mu        sync.Mutex
	addresses map[string]chan string
	lines     []logLine
}

type logLine struct{ Level, Msg, Server, Addr, Err string }

// of returns the lines with a message.
func (l *logLines) of(message string) []logLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []logLine
	for _, line := range l.lines {
		if line.Msg == message {
			found = append(found, line)
		}
	}
	return found
}

func (l *logLines) address(name string) chan string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.addresses[name] == nil {
		l.addresses[name] = make(chan string, 1)
	}
	return l.addresses[name]
}

func (l *logLines) Write(line []byte) (int, error) {
	var entry logLine
	if err := json.Unmarshal(line, &entry); err != nil {
		return 0, err
	}
	l.mu.Lock()
	l.lines = append(l.lines, entry)
	l.mu.Unlock()
	if entry.Msg == "Serving" {
		l.address(entry.Server) <- entry.Addr
	}
	return len(line), nil
}

// certified returns TLS configurations of a server and of its clients.
func certified(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	issuer := httptest.NewUnstartedServer(nil)
	issuer.StartTLS()
	t.Cleanup(issuer.Close)
	return &tls.Config{Certificates: issuer.TLS.Certificates}, issuer.Client().Transport.(*http.Transport).TLSClientConfig
}

var responding = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answered") })

// get sends a request on a new connection.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: timeout}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func assertGet(t *testing.T, url string, wantStatus int, wantBody string) {
	t.Helper()
	if status, body := get(t, url); status != wantStatus || body != wantBody {
		t.Errorf("the response of %s is %d %q, want %d %q", url, status, body, wantStatus, wantBody)
	}
}

func TestHealth_ReportsLivenessAndReadiness(t *testing.T) {
	r := newRunning(t, 0)
	var ready error
	r.AddHealth("127.0.0.1:0", func() error { return ready })
	r.start()
	address := "http://" + r.address("health")
	assertGet(t, address+"/healthz", 200, "ok\n")
	assertGet(t, address+"/readyz", 200, "ok\n")
	ready = errors.New("the keys are not synced")
	assertGet(t, address+"/healthz", 200, "ok\n")
	assertGet(t, address+"/readyz", 503, "the keys are not synced\n")
	r.stop()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestDrain_ServesForTheDelayAndCompletesRequests(t *testing.T) {
	const delay = time.Second
	r := newRunning(t, delay)
	entered, release := make(chan struct{}), make(chan struct{})
	var runnableStopped time.Time
	r.AddServer("main", "127.0.0.1:0", nil, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		_, _ = io.WriteString(w, "answered")
	}))
	r.AddHealth("127.0.0.1:0", func() error { return nil })
	r.AddRunnable(func(ctx context.Context) error {
		<-ctx.Done()
		runnableStopped = time.Now()
		return nil
	})
	r.start()
	main, health := "http://"+r.address("main"), "http://"+r.address("health")

	// A client with an open connection, and one with a request in flight.
	keepAlive := &http.Client{Timeout: timeout}
	if response, err := keepAlive.Get(main); err != nil || response.Close {
		t.Fatalf("before the drain: close %v, %v", response, err)
	} else {
		drainBody(response)
	}
	slow := make(chan string, 1)
	go func() {
		response, err := http.Get(main + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		slow <- string(body)
	}()
	<-entered

	stopped := time.Now()
	r.stop()
	framework.Eventually(t, "the process is not ready", func() bool { status, _ := get(t, health+"/readyz"); return status == 503 })
	assertGet(t, health+"/readyz", 503, "shutting down\n")
	assertGet(t, health+"/healthz", 200, "ok\n")
	assertGet(t, main, 200, "answered")
	if response, err := keepAlive.Get(main); err != nil || !response.Close {
		t.Errorf("the response during the drain does not close the connection: %v, %v", response, err)
	} else {
		drainBody(response)
	}

	framework.Eventually(t, "the server accepts no connection", func() bool {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(main, "http://"))
		if err == nil {
			_ = connection.Close()
		}
		return err != nil
	})
	if served := time.Since(stopped); served < delay {
		t.Errorf("the server accepted connections for %s, want at least the delay of %s", served, delay)
	}
	released := time.Now()
	close(release)
	if body := <-slow; body != "answered" {
		t.Errorf("the response to the request in flight is %q", body)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if runnableStopped.Before(released) {
		t.Error("the runnable stopped before the last request ended")
	}
}

func drainBody(response *http.Response) {
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
}

func TestHTTPServer_ClosesConnectionsOfSlowClients(t *testing.T) {
	for name, c := range map[string]struct {
		configure func(*http.Server)
		sent      string
		answered  bool
	}{
		"nothing is sent": {
			configure: func(s *http.Server) { s.ReadHeaderTimeout = 50 * time.Millisecond },
		},
		"the headers do not end": {
			configure: func(s *http.Server) { s.ReadHeaderTimeout = 50 * time.Millisecond },
			sent:      "GET / HTTP/1.1\r\nHost: main\r\nX-Slow: ",
		},
		"the body does not end": {
			configure: func(s *http.Server) { s.ReadTimeout = 50 * time.Millisecond },
			sent:      "POST / HTTP/1.1\r\nHost: main\r\nContent-Length: 5\r\n\r\nabc",
			answered:  true,
		},
		"no next request comes": {
			configure: func(s *http.Server) { s.IdleTimeout = 50 * time.Millisecond },
			sent:      "GET / HTTP/1.1\r\nHost: main\r\n\r\n",
			answered:  true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRunning(t, 0)
			r.AddServer("main", "127.0.0.1:0", nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			c.configure(r.servers[0].engine.(httpEngine).http1)
			r.start()
			defer r.stop()
			connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.address("main"))
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(connection, c.sent); err != nil {
				t.Fatal(err)
			}
			received, err := io.ReadAll(bufio.NewReader(connection)) // until the server closes it
			if err != nil {
				t.Fatalf("the connection was not closed: %v", err)
			}
			if answered := strings.HasPrefix(string(received), "HTTP/1.1 200 OK\r\n"); answered != c.answered {
				t.Errorf("received %q", received)
			}
		})
	}
}

func TestHTTPServer_HasTimeouts(t *testing.T) {
	p := NewProcess(Options{Log: slog.New(slog.DiscardHandler)})
	p.AddServer("main", ":0", nil, nil)
	p.AddHealth(":0", nil)
	for _, s := range p.servers {
		engine := s.engine.(httpEngine)
		for protocol, server := range map[string]*http.Server{"HTTP/1.1": engine.http1, "HTTP/2": engine.http2} {
			for name, timeout := range map[string]time.Duration{
				"ReadHeaderTimeout": server.ReadHeaderTimeout,
				"ReadTimeout":       server.ReadTimeout,
				"WriteTimeout":      server.WriteTimeout,
				"IdleTimeout":       server.IdleTimeout,
			} {
				if timeout <= 0 {
					t.Errorf("the %s server has no %s for %s", s.name, name, protocol)
				}
			}
		}
	}
}

func TestHTTPServer_PassesAllRequestsToTheHandler(t *testing.T) {
	r := newRunning(t, 0)
	r.AddServer("main", "127.0.0.1:0", nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
	}))
	r.start()
	defer r.stop()
	for _, requestLine := range []string{"OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.0", "GET /a/../b//c HTTP/1.1", "CONNECT a:1 HTTP/1.1"} {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.address("main"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(connection, requestLine+"\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		status, err := bufio.NewReader(connection).ReadString('\n')
		if err != nil || !strings.Contains(status, " 418 ") {
			t.Errorf("the response to %s is %q, %v", requestLine, status, err)
		}
		_ = connection.Close()
	}
}

func TestHTTPServer_WithTLSRejectsPlaintext(t *testing.T) {
	server, client := certified(t)
	r := newRunning(t, 0)
	r.AddServer("main", "127.0.0.1:0", server, responding)
	r.start()
	defer r.stop()
	address := r.address("main")

	for _, protocol := range []string{"h2", "http/1.1"} {
		config := client.Clone()
		config.NextProtos = []string{protocol}
		connection, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := connection.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != protocol {
			t.Errorf("the negotiated protocol is %q, want %q", got, protocol)
		}
		_ = connection.Close()
	}
	assertGet(t, "http://"+address, 400, "This port requires TLS: use https://.\n")
}

func TestRun_AddressInUseClosesAllListeners(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := newRunning(t, 0)
	r.AddServer("main", "127.0.0.1:0", nil, responding)
	r.AddServer("metrics", taken.Addr().String(), nil, responding)
	r.start()
	err = r.wait()
	want := "the metrics server cannot listen on " + taken.Addr().String() + ": "
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error is %v, want %q...", err, want)
	}
	if _, err := r.servers[0].acceptor.Listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener of the other server is open: %v", err)
	}
}

func TestRun_FailedRunnableStopsTheProcess(t *testing.T) {
	broken := errors.New("broken")
	for name, stopFirst := range map[string]bool{"while serving": false, "while draining": true} {
		t.Run(name, func(t *testing.T) {
			r := newRunning(t, time.Hour)
			fail := make(chan struct{})
			r.AddServer("main", "127.0.0.1:0", nil, responding)
			r.AddHealth("127.0.0.1:0", func() error { return nil })
			r.AddRunnable(func(context.Context) error { <-fail; return broken })
			r.start()
			health := "http://" + r.address("health")
			if stopFirst {
				r.stop()
				framework.Eventually(t, "the process is not ready", func() bool { status, _ := get(t, health+"/readyz"); return status == 503 })
			}
			close(fail)
			if err := r.wait(); !errors.Is(err, broken) {
				t.Errorf("the process returned %v", err)
			}
			if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(health, "http://")); err == nil {
				t.Error("a listener is open")
			}
		})
	}
}

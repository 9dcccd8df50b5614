// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build outages

package faults_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// atTheWorst is how long a revocation may take that no process can learn of by a connection.
	atTheWorst = 4 * time.Minute
	// ofASilentConnection is how long it may take when connections are silent.
	ofASilentConnection = 15 * time.Second
	// ofABrokenConnection is how long it may take when the process sees that its connection breaks.
	ofABrokenConnection = 5 * time.Second
)

// apiFault is what a proxy in front of the API server does to the processes that it leads there.
type apiFault struct {
	bound time.Duration
	// start starts the proxy, and returns how a process gets through it, and what makes it faulty.
	start func(f *fixture) (config *rest.Config, strike func())
}

var apiFaults = map[string]apiFault{
	"a watch hangs":                         {atTheWorst, hungWatch},
	"a list stops in the middle of a page":  {atTheWorst, stalledPage},
	"a list expires between its pages":      {ofABrokenConnection, expiredPages},
	"connections are silent":                {ofASilentConnection, silentConnections},
	"connections are half closed":           {ofABrokenConnection, halfClosedConnections},
	"connections are half closed behind it": {ofASilentConnection, connectionsHalfClosedBehind},
	"connections break":                     {ofABrokenConnection, brokenConnections},
	"the API server renews its certificate": {ofABrokenConnection, renewedCertificate},
}

// TestRevocationsAreHeardInTime measures with the bounds of real processes how long a revoked key is accepted after the API, or the way to
// it, has failed in each of these ways. It asserts a bound for each, and prints what it has measured.
func TestRevocationsAreHeardInTime(t *testing.T) {
	results := &results{}
	t.Cleanup(func() { t.Log(results) })
	env := testenv.Shared(t)
	operator.StartController(t, env.Config)
	for name, fault := range apiFaults {
		for _, process := range []string{"authenticator", "console"} {
			t.Run(name+", of the "+process, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, env)
				config, strike := fault.start(f)
				subject := f.startSubject(process, config)
				tokens := f.issue("kept", "revoked")
				f.awaitAccepted(subject, tokens)
				strike()
				f.deactivate("revoked")
				results.expect(t, name, process, fault.bound, time.Now(), func() bool { return subject.hasHeard(tokens) })
				if !subject.accepts(tokens["kept"]) {
					t.Error("a good key is refused")
				}
			})
		}
	}
	for _, name := range []string{"a watch hangs", "connections are silent", "connections break"} {
		t.Run(name+", of the controller", func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, testenv.Start(t))
			config, strike := apiFaults[name].start(f)
			operator.StartController(t, config)
			f.issue("revoked")
			strike()
			f.deactivate("revoked")
			results.expect(t, name, "controller", apiFaults[name].bound, time.Now(), func() bool { return f.isRecorded("revoked") })
		})
	}
	for name, overtaken := range map[string]bool{"an older etcd": false, "an older etcd that has caught up": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, testenv.Start(t))
			f.restoreEtcd(results, name, overtaken)
		})
	}
}

// restoreEtcd measures how long a revocation takes after etcd was restored: one made afterwards, or, if etcd is to catch up, one that is
// made while the processes are cut off, at a revision that they have seen already.
func (f *fixture) restoreEtcd(results *results, name string, overtaken bool) {
	f.Helper()
	proxy := startTCPProxy(f)
	operator.StartController(f, proxy.config)
	subjects := []*subject{f.startSubject("authenticator", proxy.config), f.startSubject("console", proxy.config)}
	tokens := f.issue("kept", "revoked")
	backup := filepath.Join(f.TempDir(), "etcd")
	framework.Must(f, f.Env.BackUpEtcd(backup))
	f.raiseRevision(300)
	tokens["seen"] = f.issue("seen")["seen"]
	for _, subject := range subjects {
		f.awaitAccepted(subject, tokens)
	}

	proxy.cutOff(true)
	f.Env.StopAPIServer()
	framework.Must(f, f.Env.RestoreEtcd(f.Context(), backup))
	framework.Must(f, f.Env.StartAPIServer(f.Context()))
	bound := ofABrokenConnection
	if overtaken {
		bound = atTheWorst
		f.deactivate("revoked")
		f.raiseRevision(600)
	}
	proxy.cutOff(false)
	if !overtaken {
		f.deactivate("revoked")
	}
	reconnected := time.Now()
	var measuring sync.WaitGroup
	for _, subject := range subjects {
		measuring.Go(func() {
			results.expect(f, name, subject.kind, bound, reconnected, func() bool { return subject.hasHeard(tokens) })
		})
	}
	measuring.Go(func() { // whose Reflector pauses for longer than the others
		results.expect(f, name, "controller", max(bound, time.Minute), reconnected, func() bool { return f.isRecorded("revoked") })
	})
	measuring.Wait()
}

// subject is a running authenticator or console.
type subject struct {
	kind, address, namespace string
}

func (f *fixture) startSubject(kind string, config *rest.Config) *subject {
	f.Helper()
	s := &subject{kind: kind, namespace: f.Namespace}
	if kind == "console" {
		s.address = f.startConsole(config)
	} else {
		s.address = startAuthenticator(f, config).Address("authenticator")
	}
	return s
}

// accepts says whether a token is good, to be asked in any goroutine.
func (s *subject) accepts(token string) bool {
	var status int
	var err error
	if s.kind == "console" {
		status, _, err = active(s.address, token)
	} else {
		status, err = ask(http.DefaultClient, s.address, s.namespace, token)
	}
	return err == nil && status == http.StatusOK
}

// hasHeard says whether the revoked key is neither accepted nor, in a console, shown as active.
func (s *subject) hasHeard(tokens map[string]string) bool {
	if s.kind == "console" {
		_, shown, err := active(s.address, tokens["kept"])
		if err != nil || slices.Contains(shown, "App revoked") {
			return false
		}
	}
	return !s.accepts(tokens["revoked"])
}

func (f *fixture) awaitAccepted(subject *subject, tokens map[string]string) {
	f.Helper()
	for name, token := range tokens {
		framework.Eventually(f, name+" is accepted", func() bool { return subject.accepts(token) })
	}
}

// isRecorded says whether the controller has recorded that a key was deactivated.
func (f *fixture) isRecorded(name string) bool {
	key := &v1alpha1.APIKey{}
	err := f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: name}, key)
	return err == nil && key.Status.DeactivatedAt != nil
}

// results are the seconds that each process took.
type results struct {
	mutex sync.Mutex
	lines []string
}

// expect measures how long it takes from an instant on until a condition holds.
func (r *results) expect(t testing.TB, fault, process string, bound time.Duration, since time.Time, condition func() bool) {
	t.Helper()
	result := "in vain"
	for time.Since(since) < atTheWorst+time.Minute {
		if condition() {
			result = fmt.Sprintf("%.1f s", time.Since(since).Seconds())
			break
		}
		time.Sleep(poll)
	}
	if time.Since(since) > bound {
		t.Errorf("%s, %s: %s, want at most %s", fault, process, result, bound)
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	line := fmt.Sprintf("%-40s %-14s %-10s (at most %s)", fault, process, result, bound)
	t.Log(line)
	r.lines = append(r.lines, line)
}

func (r *results) String() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	slices.Sort(r.lines)
	return "from a fault and a revocation after it until the revoked key is refused, or the controller has recorded it:\n" +
		strings.Join(r.lines, "\n")
}

// stalledPage has lists stop halfway.
func stalledPage(f *fixture) (config *rest.Config, strike func()) {
	return listAgain(f, 2, func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		written := 0
		forward.ServeHTTP(&limitedWriter{ResponseWriter: w, room: func() bool { written++; return written == 1 }}, r)
		<-r.Context().Done()
	})
}

// expiredPages has lists come in pages of one object, and expire after the first one.
func expiredPages(f *fixture) (config *rest.Config, strike func()) {
	return listAgain(f, 4, func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if query.Has("continue") {
			refuse(w, apierrors.NewResourceExpired("the provided continue parameter is too old"))
			return
		}
		query.Set("limit", "1")
		r.URL.RawQuery = query.Encode()
		forward.ServeHTTP(w, r)
	})
}

// listAgain breaks the watches at the strike, and has the next ones expire. Of the lists that follow, so many calls are intercepted.
func listAgain(
	f *fixture, calls int32, intercept func(forward http.Handler, w http.ResponseWriter, r *http.Request),
) (config *rest.Config, strike func()) {
	const reflectors = 2 // of a console
	struck, strike := context.WithCancel(context.Background())
	ended := f.Context()
	f.Cleanup(strike)
	var expired, listed atomic.Int32
	proxy := startProxy(f, f.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r, end := until(ended, r)
			defer end()
			query := r.URL.Query()
			lists := query.Get("sendInitialEvents") == "true" || !query.Has("watch") && query.Get("limit") != "1"
			switch {
			case struck.Err() == nil:
				r, end := until(struck, r)
				defer end()
				forward.ServeHTTP(w, r)
			case lists && listed.Add(1) <= calls:
				intercept(forward, w, r)
			case !lists && query.Has("watch") && expired.Add(1) <= reflectors:
				refuse(w, apierrors.NewResourceExpired("too old resource version"))
			default:
				forward.ServeHTTP(w, r)
			}
		})
	})
	return proxy.config, strike
}

func silentConnections(f *fixture) (config *rest.Config, strike func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() { proxy.each(func(c *proxied) { c.silent.Store(true) }) }
}

func brokenConnections(f *fixture) (config *rest.Config, strike func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() { proxy.each((*proxied).close) }
}

// halfClosedConnections has the processes see the end of what the API server sends, which still gets what they send.
func halfClosedConnections(f *fixture) (config *rest.Config, strike func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() {
		proxy.each(func(c *proxied) {
			c.silent.Store(true)
			_ = c.client.CloseWrite()
		})
	}
}

// connectionsHalfClosedBehind has the API server see the end of what the processes send, and the processes nothing of that.
func connectionsHalfClosedBehind(f *fixture) (config *rest.Config, strike func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() {
		proxy.each(func(c *proxied) {
			c.silent.Store(true)
			_ = c.server.CloseWrite()
		})
	}
}

// renewedCertificate has the processes connect again to an API server with another certificate.
func renewedCertificate(f *fixture) (config *rest.Config, strike func()) {
	proxy := startTCPProxy(f)
	return proxy.config, func() {
		renewing.Lock()
		defer renewing.Unlock()
		former := f.servingCertificate()
		framework.Must(f, f.Env.RenewServingCertificate())
		framework.EventuallyWithin(f, 2*time.Minute, poll, "the API server serves with its new certificate", func() bool {
			return f.servingCertificate() != former
		})
		proxy.each((*proxied).close)
	}
}

var renewing sync.Mutex // one after the other

// servingCertificate returns the serial number of the API server's certificate.
func (f *fixture) servingCertificate() string {
	f.Helper()
	connection, err := tls.Dial("tcp", strings.TrimPrefix(f.Env.Config.Host, "https://"), &tls.Config{InsecureSkipVerify: true})
	framework.Must(f, err)
	defer func() { _ = connection.Close() }() // nothing was sent
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// tcpProxy passes on the connections of a process to the API server, which are encrypted from end to end.
type tcpProxy struct {
	config *rest.Config

	mutex       sync.Mutex
	connections []*proxied
	isCutOff    bool
}

// proxied is a connection that goes through a proxy.
type proxied struct {
	client, server *net.TCPConn
	silent         atomic.Bool // loses what is sent
}

func (c *proxied) close() {
	_ = c.client.Close()
	_ = c.server.Close()
}

func startTCPProxy(f *fixture) *tcpProxy {
	f.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	framework.Must(f, err)
	p := &tcpProxy{config: rest.CopyConfig(f.Env.Config)}
	p.config.Host = "https://" + listener.Addr().String()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(client.(*net.TCPConn), strings.TrimPrefix(f.Env.Config.Host, "https://"))
		}
	}()
	f.Cleanup(func() {
		_ = listener.Close()
		p.each((*proxied).close)
	})
	return p
}

func (p *tcpProxy) serve(client *net.TCPConn, address string) {
	server, err := net.Dial("tcp", address)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &proxied{client: client, server: server.(*net.TCPConn)}
	p.mutex.Lock()
	if p.isCutOff {
		c.close()
	}
	p.connections = append(p.connections, c)
	p.mutex.Unlock()
	go c.pass(c.client, c.server)
	c.pass(c.server, c.client)
}

// pass copies what one side sends to the other one, and its end.
func (c *proxied) pass(from, to *net.TCPConn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		switch {
		case c.silent.Load():
		case err != nil:
			_ = to.CloseWrite()
		default:
			_, _ = to.Write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// each does something to all connections.
func (p *tcpProxy) each(do func(*proxied)) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, c := range p.connections {
		do(c)
	}
}

// cutOff breaks all connections and lets no other through, or lets them through again.
func (p *tcpProxy) cutOff(cut bool) {
	p.mutex.Lock()
	p.isCutOff = cut
	p.mutex.Unlock()
	if cut {
		p.each((*proxied).close)
	}
}

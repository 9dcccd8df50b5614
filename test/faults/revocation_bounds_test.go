// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build outages

package faults_test

import (
	"context"
	"fmt"
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

// Bounds of how long a revocation may take after a fault.
const (
	// relistBound is for faults that no connection shows. Only a relist finds out.
	relistBound = 4 * time.Minute
	// silentConnectionBound is for connections over which nothing arrives.
	silentConnectionBound = 15 * time.Second
	// brokenConnectionBound is for connections whose end the process sees.
	brokenConnectionBound = 5 * time.Second
)

// apiFault is a fault that a proxy in front of the API server injects.
type apiFault struct {
	bound time.Duration
	// start starts the proxy. It returns the config of a process that uses the proxy, and a function that injects the fault.
	start func(f *fixture) (config *rest.Config, inject func())
}

var apiFaults = map[string]apiFault{
	"a watch hangs":                                      {relistBound, hangWatches},
	"a list stops in the middle of a page":               {relistBound, stallPages},
	"a list expires between its pages":                   {brokenConnectionBound, expirePages},
	"connections are silent":                             {silentConnectionBound, silenceConnections},
	"connections are half-closed towards the process":    {brokenConnectionBound, halfCloseClientSide},
	"connections are half-closed towards the API server": {silentConnectionBound, halfCloseServerSide},
	"connections break":                                  {brokenConnectionBound, closeConnections},
	"the API server renews its certificate":              {brokenConnectionBound, renewCertificate},
}

// TestRevocationsTakeEffectInTime measures how long a revoked key is accepted after each fault of the API server or the network, by
// processes with their default bounds. It asserts a bound for each fault, and logs the measurements.
func TestRevocationsTakeEffectInTime(t *testing.T) {
	measured := &measurements{}
	t.Cleanup(func() { t.Log(measured) })
	env := testenv.Shared(t)
	operator.StartController(t, env.Config)
	for name, fault := range apiFaults {
		for _, kind := range []string{"authenticator", "console"} {
			t.Run(name+", of the "+kind, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, env)
				config, inject := fault.start(f)
				reader := f.startReader(kind, config)
				tokens := f.issue("kept", "revoked")
				f.awaitAccepted(reader, tokens)
				inject()
				f.deactivate("revoked")
				measured.measure(t, name, kind, fault.bound, time.Now(), func() bool { return reader.refusesRevoked(tokens) })
				if !reader.accepts(tokens["kept"]) {
					t.Error("the valid key is refused")
				}
			})
		}
	}
	for _, name := range []string{"a watch hangs", "connections are silent", "connections break"} {
		t.Run(name+", of the controller", func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, testenv.Start(t))
			config, inject := apiFaults[name].start(f)
			operator.StartController(t, config)
			f.issue("revoked")
			inject()
			f.deactivate("revoked")
			measured.measure(t, name, "controller", apiFaults[name].bound, time.Now(), func() bool { return f.isRecorded("revoked") })
		})
	}
	for name, catchesUp := range map[string]bool{"etcd is restored": false, "etcd is restored and catches up": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, testenv.Start(t))
			f.restoreEtcd(measured, name, catchesUp)
		})
	}
}

// restoreEtcd measures how long a revocation takes after etcd was restored from a backup. If etcd is to catch up, the key is revoked while
// the processes are disconnected, and etcd then writes past the revision that they have seen. Otherwise the key is revoked afterwards.
func (f *fixture) restoreEtcd(measured *measurements, name string, catchesUp bool) {
	f.Helper()
	proxy := startTCPProxy(f)
	operator.StartController(f, proxy.config)
	readers := []*reader{f.startReader("authenticator", proxy.config), f.startReader("console", proxy.config)}
	tokens := f.issue("kept", "revoked")
	backup := filepath.Join(f.TempDir(), "etcd")
	framework.Must(f, f.Env.BackUpEtcd(backup))
	f.raiseRevision(300)
	tokens["seen"] = f.issue("seen")["seen"]
	for _, reader := range readers {
		f.awaitAccepted(reader, tokens)
	}

	proxy.setDisconnected(true)
	f.Env.StopAPIServer()
	framework.Must(f, f.Env.RestoreEtcd(f.Context(), backup))
	framework.Must(f, f.Env.StartAPIServer(f.Context()))
	bound := brokenConnectionBound
	if catchesUp {
		bound = relistBound
		f.deactivate("revoked")
		f.raiseRevision(600)
	}
	proxy.setDisconnected(false)
	if !catchesUp {
		f.deactivate("revoked")
	}
	reconnected := time.Now()
	var measuring sync.WaitGroup
	for _, reader := range readers {
		measuring.Go(func() {
			measured.measure(f, name, reader.kind, bound, reconnected, func() bool { return reader.refusesRevoked(tokens) })
		})
	}
	measuring.Go(func() { // client-go's reflector has a longer backoff
		measured.measure(f, name, "controller", max(bound, time.Minute), reconnected, func() bool { return f.isRecorded("revoked") })
	})
	measuring.Wait()
}

// reader is a running authenticator or console, which reads keys from the API server.
type reader struct {
	kind, address, namespace string
}

func (f *fixture) startReader(kind string, config *rest.Config) *reader {
	f.Helper()
	r := &reader{kind: kind, namespace: f.Namespace}
	if kind == "console" {
		r.address = operator.StartConsole(f, config, f.Namespace).Address("console")
	} else {
		r.address = startAuthenticator(f, config).Address("authenticator")
	}
	return r
}

// accepts reports whether a token is accepted. It is for any goroutine.
func (r *reader) accepts(token string) bool {
	var status int
	var err error
	if r.kind == "console" {
		status, _, err = listActive(r.address, token)
	} else {
		status, err = check(http.DefaultClient, r.address, r.namespace, token)
	}
	return err == nil && status == http.StatusOK
}

// refusesRevoked reports whether the revoked key is refused and, in a console, not listed as active.
func (r *reader) refusesRevoked(tokens map[string]string) bool {
	if r.kind == "console" {
		_, active, err := listActive(r.address, tokens["kept"])
		if err != nil || slices.Contains(active, "App revoked") {
			return false
		}
	}
	return !r.accepts(tokens["revoked"])
}

func (f *fixture) awaitAccepted(reader *reader, tokens map[string]string) {
	f.Helper()
	for name, token := range tokens {
		framework.Eventually(f, name+" is accepted", func() bool { return reader.accepts(token) })
	}
}

// isRecorded reports whether the controller has recorded that a key was deactivated.
func (f *fixture) isRecorded(name string) bool {
	key := &v1alpha1.APIKey{}
	err := f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: name}, key)
	return err == nil && key.Status.DeactivatedAt != nil
}

// measurements are how long each process took.
type measurements struct {
	mutex sync.Mutex
	lines []string
}

// measure measures the time from since until a condition is true, and fails the test if it exceeds the bound.
func (m *measurements) measure(t testing.TB, fault, process string, bound time.Duration, since time.Time, condition func() bool) {
	t.Helper()
	result := "never"
	for time.Since(since) < relistBound+time.Minute {
		if condition() {
			result = fmt.Sprintf("%.1f s", time.Since(since).Seconds())
			break
		}
		time.Sleep(framework.PollInterval)
	}
	if time.Since(since) > bound {
		t.Errorf("%s, %s: got %s, want at most %s", fault, process, result, bound)
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	line := fmt.Sprintf("%-50s %-14s %-10s (at most %s)", fault, process, result, bound)
	t.Log(line)
	m.lines = append(m.lines, line)
}

func (m *measurements) String() string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	slices.Sort(m.lines)
	return "time from the revocation, which follows the fault, until the key is refused or the controller has recorded it:\n" +
		strings.Join(m.lines, "\n")
}

// stallPages makes lists stop after their first bytes.
func stallPages(f *fixture) (config *rest.Config, inject func()) {
	return interceptRelist(f, 1, func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		writes := 0
		forward.ServeHTTP(&lossyWriter{ResponseWriter: w, drops: func() bool { writes++; return writes > 1 }}, r)
		<-r.Context().Done()
	})
}

// expirePages cuts lists into pages of one object, and makes them expire after the first page.
func expirePages(f *fixture) (config *rest.Config, inject func()) {
	return interceptRelist(f, 2, func(forward http.Handler, w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if query.Has("continue") {
			respondError(w, apierrors.NewResourceExpired("the provided continue parameter is too old"))
			return
		}
		query.Set("limit", "1")
		r.URL.RawQuery = query.Encode()
		forward.ServeHTTP(w, r)
	})
}

// interceptRelist forces a relist: inject breaks the watches, and the next one expires. Of the following list requests, the first ones are
// intercepted.
func interceptRelist(
	f *fixture, requests int32, intercept func(forward http.Handler, w http.ResponseWriter, r *http.Request),
) (config *rest.Config, inject func()) {
	injected, inject := context.WithCancel(context.Background())
	ended := f.Context()
	f.Cleanup(inject)
	var expired, listed atomic.Int32
	proxy := startProxy(f, f.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r, cancel := cancelWith(ended, r)
			defer cancel()
			query := r.URL.Query()
			lists := query.Get("sendInitialEvents") == "true" || !query.Has("watch") && query.Get("limit") != "1"
			switch {
			case injected.Err() == nil:
				r, cancel := cancelWith(injected, r)
				defer cancel()
				forward.ServeHTTP(w, r)
			case lists && listed.Add(1) <= requests:
				intercept(forward, w, r)
			case !lists && query.Has("watch") && expired.Add(1) == 1:
				respondError(w, apierrors.NewResourceExpired("too old resource version"))
			default:
				forward.ServeHTTP(w, r)
			}
		})
	})
	return proxy.config, inject
}

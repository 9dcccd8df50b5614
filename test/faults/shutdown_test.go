// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	clients           = 4
	responsesPerPhase = 25 // of each client, before and during the drain
)

func TestShutdown_NoRequestFailsDuringTheDrain(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	issued := f.issueWithTemporaryController("frontend")["frontend"]
	authenticator := startAuthenticator(t, f.Env.Config, "--shutdown-delay=3s")
	gateway, health := authenticator.Address("authenticator"), authenticator.Address("health")
	f.awaitStatus(gateway, issued, http.StatusOK)

	load := &load{fixture: f, gateway: gateway, token: issued}
	load.start()
	load.await(responsesPerPhase)
	authenticator.Signal(syscall.SIGTERM)
	framework.Eventually(t, "/readyz reports the shutdown", func() bool {
		status, text := f.get(health, "/readyz")
		return status == http.StatusServiceUnavailable && text == "shutting down\n"
	})
	load.await(responsesPerPhase)
	if status, text := f.get(health, "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz during the drain: got %d %s, want 503", status, text)
	}
	load.stop()
	if how, want := authenticator.Exit(), "exit status 0"; how != want {
		t.Errorf("got %q, want %q", how, want)
	}
}

// A controller that cannot read the keys, for instance because a Role is missing, is not ready. It stops at the signal all the same.
func TestShutdown_AControllerWithoutASyncedCacheStops(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "apikey-controller"}}
	framework.Must(t, f.Env.Client.Create(t.Context(), account))
	controller := operator.StartController(t, f.Env.ServiceAccount(t, f.Namespace, account.Name), "--namespaces="+f.Namespace)
	framework.Eventually(t, "/readyz reports the cache", func() bool {
		status, text := f.get(controller.Address("health"), "/readyz")
		return status == http.StatusServiceUnavailable && text == "the cache is not synced with the Kubernetes API\n"
	})
	controller.Signal(syscall.SIGTERM)
	if how, want := controller.Exit(), "exit status 0"; how != want {
		t.Errorf("got %q, want %q", how, want)
	}
}

// load checks one token without a pause, from clients with a connection each.
type load struct {
	*fixture
	gateway, token string

	stopped   atomic.Bool
	running   sync.WaitGroup
	responses [clients]atomic.Int64
}

func (l *load) start() {
	for i := range l.responses {
		l.running.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for !l.stopped.Load() && !l.Failed() {
				if status, err := check(client, l.gateway, l.Namespace, l.token); err != nil || status != http.StatusOK {
					l.Errorf("request %d of client %d: got status %d (%v), want 200", l.responses[i].Load(), i, status, err)
				}
				l.responses[i].Add(1)
			}
		})
	}
	l.Cleanup(l.stop)
}

// await waits until each client has got this many more responses.
func (l *load) await(responses int64) {
	l.Helper()
	for i := range l.responses {
		target := l.responses[i].Load() + responses
		framework.Eventually(l, "each client has got its responses", func() bool { return l.Failed() || l.responses[i].Load() >= target })
	}
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.running.Wait()
}

func TestMaxStaleness_TooShortIsAUsageError(t *testing.T) {
	authenticator := startAuthenticator(t, &rest.Config{Host: "http://127.0.0.1:1"}, "--max-staleness=1m")
	if how, want := authenticator.Exit(), "exit status 2"; how != want {
		t.Errorf("got %q, want %q", how, want)
	}
	const want = "Error: --max-staleness=1m0s is too short, because the Kubernetes API sends a bookmark only about once a minute: " +
		"use at least 2m0s, or 0 for no limit\nRun 'apikey-operator authenticator --help' for usage.\n"
	if got := authenticator.Output(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

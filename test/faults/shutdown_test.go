// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	gateways        = 4
	answersPerPhase = 25 // that each gateway gets while the process runs, and again while it drains
)

func TestNoRequestIsLostWhileTheAuthenticatorDrains(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	issued := f.issueOnce("frontend")["frontend"]
	authenticator := startAuthenticator(t, f.Env.Config, "--shutdown-delay=3s")
	gateway, health := authenticator.Address("authenticator"), authenticator.Address("health")
	f.awaitAnswer(gateway, issued, http.StatusOK)

	load := &load{fixture: f, gateway: gateway, token: issued}
	load.start()
	load.await(answersPerPhase)
	authenticator.Signal(syscall.SIGTERM)
	framework.Eventually(t, "/readyz says that the process goes", func() bool {
		status, text := f.health(health, "/readyz")
		return status == http.StatusServiceUnavailable && text == "shutting down\n"
	})
	load.await(answersPerPhase)
	if status, text := f.health(health, "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d %s during the drain", status, text)
	}
	load.stop()
	if how := authenticator.Exit(); how != "exit status 0" {
		t.Errorf("the process ended with %s", how)
	}
}

// load is gateways that each keep a connection, and ask for one token without a pause.
type load struct {
	*fixture
	gateway, token string

	stopped  atomic.Bool
	running  sync.WaitGroup
	answered [gateways]atomic.Int64
}

func (l *load) start() {
	for i := range l.answered {
		l.running.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for !l.stopped.Load() && !l.Failed() {
				if status, err := ask(client, l.gateway, l.Namespace, l.token); err != nil || status != http.StatusOK {
					l.Errorf("request %d of gateway %d: answered %d (%v)", l.answered[i].Load(), i, status, err)
				}
				l.answered[i].Add(1)
			}
		})
	}
	l.Cleanup(l.stop)
}

// await waits until each gateway has got this many answers more.
func (l *load) await(answers int64) {
	l.Helper()
	for i := range l.answered {
		until := l.answered[i].Load() + answers
		framework.Eventually(l.TB, "the load goes on", func() bool { return l.Failed() || l.answered[i].Load() >= until })
	}
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.running.Wait()
}

func TestTooShortAMaxStalenessIsAMistakeOfWhoeverCalls(t *testing.T) {
	authenticator := startAuthenticator(t, &rest.Config{Host: "http://127.0.0.1:1"}, "--max-staleness=1m")
	if how := authenticator.Exit(); how != "exit status 2" {
		t.Errorf("the process ended with %s", how)
	}
	const want = "Error: --max-staleness=1m0s is too short, because the Kubernetes API sends a bookmark only about once a minute: " +
		"use at least 2m0s, or 0 for no limit\nRun 'apikey-operator authenticator --help' for usage.\n"
	if got := authenticator.Printed(); got != want {
		t.Errorf("it printed %q, want %q", got, want)
	}
}

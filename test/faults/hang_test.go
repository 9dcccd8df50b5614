// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/kubeapi"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// TestInvariant5_AHungWatchIsReplaced has the watch of each kind of Reflector hang, with shorter bounds than processes have. The others are
// measured with theirs by `make test-outages`.
func TestInvariant5_AHungWatchIsReplaced(t *testing.T) {
	env := testenv.Shared(t)
	for name, follow := range map[string]func(f *fixture, config *rest.Config) (known func() int){
		"of the Keyring":      followWithKeyring,
		"of the controller's": followWithCache,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, env)
			config, hang := hungWatch(f)
			bounds := kubeapi.Timeouts{WatchIdle: time.Second, CallIdle: framework.Timeout, RelistWithin: time.Second}
			kubeapi.Harden(config, bounds, kubeapi.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
			listed := f.createIssued("listed")
			known := follow(f, config)
			framework.Eventually(t, "a key is known", func() bool { return known() == 1 })
			f.createIssued("watched") // after the list
			framework.Eventually(t, "a later key is known", func() bool { return known() == 2 })
			hang()
			framework.Must(t, f.Env.Client.Delete(t.Context(), listed))
			framework.Eventually(t, "its end is known", func() bool { return known() == 1 })
		})
	}
}

// createIssued creates a key that no controller has to issue.
func (f *fixture) createIssued(name string) *v1alpha1.APIKey {
	f.Helper()
	key := f.CreateKey(name)
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(token.New()), Hint: "sq_", NotBefore: new(metav1.Now())}}
	framework.Must(f, f.Env.Client.Status().Update(f.Context(), key))
	return key
}

func followWithKeyring(f *fixture, config *rest.Config) (known func() int) {
	keyring := authn.NewKeyring()
	f.runUntilTheEnd(func(ctx context.Context) error { return keyring.Run(ctx, config, f.Namespace) })
	return keyring.Len
}

func followWithCache(f *fixture, config *rest.Config) (known func() int) {
	informers, err := cache.New(config, cache.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	f.runUntilTheEnd(informers.Start)
	return func() int {
		keys := &v1alpha1.APIKeyList{}
		if err := informers.List(f.Context(), keys, client.InNamespace(f.Namespace)); err != nil {
			return -1 // not started yet
		}
		return len(keys.Items)
	}
}

// runUntilTheEnd runs something until the test ends.
func (f *fixture) runUntilTheEnd(run func(context.Context) error) {
	ctx, stop := context.WithCancel(f.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			f.Error(err)
		}
	})
	f.Cleanup(func() {
		stop()
		running.Wait()
	})
}

// hungWatch has the watches that are there at the strike hang: their connections stay, and later watches work.
func hungWatch(f *fixture) (config *rest.Config, strike func()) {
	var struck atomic.Bool
	ended := f.Context()
	proxy := startProxy(f, f.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("watch") && !struck.Load() {
				w = &limitedWriter{ResponseWriter: w, room: func() bool { return !struck.Load() }}
			}
			r, end := until(ended, r)
			defer end()
			forward.ServeHTTP(w, r)
		})
	})
	return proxy.config, func() { struck.Store(true) }
}

// until returns a request that is cancelled when ctx is done, too.
func until(ctx context.Context, r *http.Request) (limited *http.Request, end func()) {
	limit, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(ctx, cancel)
	return r.WithContext(limit), func() {
		stop()
		cancel()
	}
}

// limitedWriter loses what is written to it while there is no room.
type limitedWriter struct {
	http.ResponseWriter
	room func() bool
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if !l.room() {
		return len(p), nil
	}
	return l.ResponseWriter.Write(p)
}

func (l *limitedWriter) Unwrap() http.ResponseWriter { return l.ResponseWriter }

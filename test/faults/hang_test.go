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
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// TestInvariant5_AHungWatchIsReplaced has the watch of each kind of Reflector hang, with shorter bounds than processes have. The others are
// measured with theirs by `make test-outages`.
func TestInvariant5_AHungWatchIsReplaced(t *testing.T) {
	env := testenv.Shared(t)
	for name, follow := range map[string]func(w *world, config *rest.Config) (known func() int){
		"of the Keyring":      followWithKeyring,
		"of the controller's": followWithCache,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, env)
			config, hang := hungWatch(w)
			bounds := kubeapi.Bounds{WatchSilence: time.Second, CallSilence: patience, RelistWithin: time.Second}
			kubeapi.Harden(config, bounds, kubeapi.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
			listed := w.createIssued("listed")
			known := follow(w, config)
			eventually(t, "a key is known", func() bool { return known() == 1 })
			w.createIssued("watched") // after the list
			eventually(t, "a later key is known", func() bool { return known() == 2 })
			hang()
			must(t, w.env.Client.Delete(t.Context(), listed))
			eventually(t, "its end is known", func() bool { return known() == 1 })
		})
	}
}

// createIssued creates a key that no controller has to issue.
func (w *world) createIssued(name string) *v1alpha1.APIKey {
	w.Helper()
	key := w.create(name)
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(token.New()), Hint: "sq_", NotBefore: new(metav1.Now())}}
	must(w.T, w.env.Client.Status().Update(w.Context(), key))
	return key
}

func followWithKeyring(w *world, config *rest.Config) (known func() int) {
	keyring := authn.NewKeyring()
	w.runUntilTheEnd(func(ctx context.Context) error { return keyring.Run(ctx, config, w.namespace) })
	return keyring.Len
}

func followWithCache(w *world, config *rest.Config) (known func() int) {
	informers, err := cache.New(config, cache.Options{Scheme: w.env.Scheme})
	must(w.T, err)
	w.runUntilTheEnd(informers.Start)
	return func() int {
		keys := &v1alpha1.APIKeyList{}
		if err := informers.List(w.Context(), keys, client.InNamespace(w.namespace)); err != nil {
			return -1 // not started yet
		}
		return len(keys.Items)
	}
}

// runUntilTheEnd runs something until the test ends.
func (w *world) runUntilTheEnd(run func(context.Context) error) {
	ctx, stop := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			w.Error(err)
		}
	})
	w.Cleanup(func() {
		stop()
		running.Wait()
	})
}

// hungWatch has the watches that are there at the strike hang: their connections stay, and later watches work.
func hungWatch(w *world) (config *rest.Config, strike func()) {
	var struck atomic.Bool
	ended := w.Context()
	proxy := startProxy(w.T, w.env.Config, func(forward http.Handler) http.Handler {
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

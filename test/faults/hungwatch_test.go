// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"log/slog"
	"sync"
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

// TestInvariant5_AHungWatchIsReplaced makes the watch of each kind of reflector hang, with shorter bounds than those of the processes.
// `make test-outages` measures the latter.
func TestInvariant5_AHungWatchIsReplaced(t *testing.T) {
	env := testenv.Shared(t)
	for name, start := range map[string]func(f *fixture, config *rest.Config) (count func() int){
		"of the Keyring":    startKeyring,
		"of the controller": startCache,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, env)
			config, inject := hangWatches(f)
			timeouts := kubeapi.Timeouts{WatchIdle: time.Second, CallIdle: framework.Timeout, RelistWithin: time.Second}
			kubeapi.Harden(config, timeouts, kubeapi.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
			listed := f.createIssuedKey("listed")
			count := start(f, config)
			framework.Eventually(t, "the listed key is stored", func() bool { return count() == 1 })
			f.createIssuedKey("watched")
			framework.Eventually(t, "the watched key is stored", func() bool { return count() == 2 })
			inject()
			framework.Must(t, f.Env.Client.Delete(t.Context(), listed))
			framework.Eventually(t, "the deleted key is removed", func() bool { return count() == 1 })
		})
	}
}

// createIssuedKey creates a key with the status of an issued one, without a controller.
func (f *fixture) createIssuedKey(name string) *v1alpha1.APIKey {
	f.Helper()
	key := f.CreateKey(name)
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(token.New()), Hint: "sq_", NotBefore: new(metav1.Now())}}
	framework.Must(f, f.Env.Client.Status().Update(f.Context(), key))
	return key
}

// startKeyring returns the number of keys in a Keyring.
func startKeyring(f *fixture, config *rest.Config) (count func() int) {
	keyring := authn.NewKeyring()
	f.runInBackground(func(ctx context.Context) error { return keyring.Run(ctx, config, f.Namespace) })
	return keyring.Len
}

// startCache returns the number of keys in a cache like that of the controller.
func startCache(f *fixture, config *rest.Config) (count func() int) {
	informers, err := cache.New(config, cache.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	f.runInBackground(informers.Start)
	return func() int {
		keys := &v1alpha1.APIKeyList{}
		if err := informers.List(f.Context(), keys, client.InNamespace(f.Namespace)); err != nil {
			return -1 // the cache has not started yet
		}
		return len(keys.Items)
	}
}

// runInBackground calls run in a goroutine until the test ends.
func (f *fixture) runInBackground(run func(context.Context) error) {
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

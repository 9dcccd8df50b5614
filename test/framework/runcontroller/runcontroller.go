// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package runcontroller runs the controller in the process of a test, which needs keys to be issued.
package runcontroller

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/kubeapi"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// Start runs a controller of one namespace until the test ends or stop is called.
func Start(t testing.TB, env *testenv.Env, namespace string) (stop func()) {
	t.Helper()
	return StartWith(t, env, env.Config, namespace, func(*controllers.APIKeyReconciler) {})
}

// StartWith is [Start] with the credentials of a config and a reconciler that the test changes before it starts.
func StartWith(
	t testing.TB, env *testenv.Env, config *rest.Config, namespace string, change func(*controllers.APIKeyReconciler),
) (stop func()) {
	t.Helper()
	config = rest.CopyConfig(config)
	clock, err := kubeapi.NewClock(config, time.Now, slog.New(slog.DiscardHandler))
	framework.Must(t, err)
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:     env.Scheme,
		Client:     controllers.ClientOptions(),
		Cache:      controllers.CacheOptions(namespace),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: controllerconfig.Controller{SkipNameValidation: new(true)},
		Logger:     logr.Discard(),
	})
	framework.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	framework.Must(t, apikey.Index(ctx, mgr.GetFieldIndexer()))
	reconciler, err := controllers.NewAPIKeyReconciler(mgr, clock)
	framework.Must(t, err)
	change(reconciler)
	framework.Must(t, reconciler.SetupWithManager(mgr))
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the controller stopped with %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"net/http"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fixture is a namespace.
type fixture struct{ *testenv.Fixture }

func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return &fixture{testenv.NewFixture(t, testenv.Shared(t))}
}

// newFixtureWithController returns a fixture with a controller.
func newFixtureWithController(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	runcontroller.Start(t, f.Env, f.Namespace)
	return f
}

func (f *fixture) options(appName string, change ...func(*keyclient.CreateOptions)) keyclient.CreateOptions {
	options := keyclient.CreateOptions{Namespace: f.Namespace, AppName: appName, ReadAccess: true}
	for _, c := range change {
		c(&options)
	}
	return options
}

func (f *fixture) create(appName string, change ...func(*keyclient.CreateOptions)) *keyclient.CreateResult {
	f.Helper()
	created, err := keyclient.Create(f.Context(), f.Env.Client, f.options(appName, change...))
	framework.Must(f, err)
	return created
}

// clientWith returns a client with a transport.
func (f *fixture) clientWith(transport func(http.RoundTripper) http.RoundTripper) client.WithWatch {
	f.Helper()
	config := rest.CopyConfig(f.Env.Config)
	config.Wrap(transport)
	c, err := client.NewWithWatch(config, client.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	return c
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fixture is a namespace with a controller whose clock the test sets.
type fixture struct {
	*testenv.Fixture
	clock      *clock
	reconciler *controllers.APIKeyReconciler // of the controller that was started last
}

// newFixture lets the test run in parallel. A test whose subtests call newFixture must call t.Parallel, so that it does not wait for them.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return newSecondFixture(t)
}

// newSecondFixture returns one more fixture for a test that already has one.
func newSecondFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Fixture: testenv.NewFixture(t, testenv.Shared(t)), clock: &clock{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the keys are %s", f.describe())
		}
	})
	return f
}

// clock is the real clock, set forward.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// startController runs a controller over the fixture's namespace until the test ends or stop is called. The transport, if not nil, wraps
// the controller's connection to the API server.
func (f *fixture) startController(transport func(http.RoundTripper) http.RoundTripper) (stop func()) {
	f.Helper()
	restConfig := rest.CopyConfig(f.Env.Config)
	if transport != nil {
		restConfig.Wrap(transport)
	}
	return runcontroller.StartWith(f, f.Env, restConfig, f.Namespace, func(r *controllers.APIKeyReconciler) {
		r.Now, r.CheckClock = f.clock.Now, func(context.Context) error { return nil } // as if the API server's clock were the same
		f.reconciler = r
	})
}

func appName(name string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.AppName = name }
}

func tokenHash(hash string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.TokenHash = hash }
}

// touch makes the controller reconcile a key without changing its spec.
func (f *fixture) touch(name, value string) {
	f.Helper()
	f.UpdateKey(name, func(key *v1alpha1.APIKey) { metav1.SetMetaDataAnnotation(&key.ObjectMeta, "test/touched", value) })
}

// touchSpec makes the controller reconcile a key without changing its metadata.
func (f *fixture) touchSpec(name string) {
	f.Helper()
	f.UpdateKey(name, func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = !key.Spec.WriteAccess })
}

// events returns the events of a key with a reason.
func (f *fixture) events(name, reason string) []eventsv1.Event {
	f.Helper()
	list := &eventsv1.EventList{}
	framework.Must(f, f.Env.Client.List(f.Context(), list, client.InNamespace(f.Namespace)))
	return slices.DeleteFunc(list.Items, func(event eventsv1.Event) bool {
		return event.Regarding.Name != name || event.Reason != reason
	})
}

// waitForEvent waits for an event about a key and returns its type and note.
func (f *fixture) waitForEvent(name, reason string) (eventType, note string) {
	f.Helper()
	framework.Eventually(f, name+" has the event "+reason, func() bool {
		events := f.events(name, reason)
		if len(events) > 0 {
			eventType, note = events[0].Type, events[0].Note
		}
		return len(events) > 0
	})
	return eventType, note
}

func (f *fixture) describe() string {
	description := ""
	for _, key := range f.Keys() {
		description += "\n  " + key.Name
		for _, condition := range key.Status.Conditions {
			description += " " + condition.Type + "=" + string(condition.Status) + "/" + condition.Reason + " (" + condition.Message + ")"
		}
	}
	return description
}

// assertIssued checks that the key has exactly one token, which is in the Secret of this name.
func (f *fixture) assertIssued(key *v1alpha1.APIKey, secretName string) {
	f.Helper()
	secret := f.Secret(secretName)
	switch {
	case secret == nil:
		f.Fatalf("Secret %q does not exist", secretName)
	case !apikey.IsIssued(key) || len(key.Status.Tokens) != 1:
		f.Fatalf("the key is not issued with one token: %v", key.Status.Tokens)
	case key.Status.Tokens[0].Hash != token.Hash(string(secret.Data["token"])):
		f.Fatal("the Secret does not hold a token of the recorded hash")
	}
}

func (f *fixture) isStalled(name string) bool {
	f.Helper()
	return meta.IsStatusConditionTrue(f.GetKey(name).Status.Conditions, v1alpha1.ConditionStalled)
}

func (f *fixture) assertConditions(key *v1alpha1.APIKey, want map[string]string) {
	f.Helper()
	got := map[string]string{}
	for _, condition := range key.Status.Conditions {
		got[condition.Type] = string(condition.Status) + " " + condition.Reason + ": " + condition.Message
		if condition.ObservedGeneration != key.Generation {
			f.Errorf("condition %s describes generation %d of %d", condition.Type, condition.ObservedGeneration, key.Generation)
		}
	}
	for conditionType, text := range want {
		if got[conditionType] != text {
			f.Errorf("condition %s of %s is %q, want %q", conditionType, key.Name, got[conditionType], text)
		}
		delete(got, conditionType)
	}
	if len(got) != 0 {
		f.Errorf("%s has conditions that it should not have: %v", key.Name, got)
	}
}

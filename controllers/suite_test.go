// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// patience bounds every wait for something that must come.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	testenv.Main(m)
}

// world is one namespace of the API, and what a test does there.
type world struct {
	*testing.T
	env       *testenv.Env
	namespace string
	clock     *clock
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return newWorldBeside(t)
}

// newWorldBeside returns one more world for a test.
func newWorldBeside(t *testing.T) *world {
	t.Helper()
	env := testenv.Shared(t)
	return &world{T: t, env: env, namespace: env.Namespace(t), clock: &clock{}}
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

// startController runs a controller over the world's namespace until the test ends or stop is called. The transport, if not nil, wraps
// the controller's connection to the API server.
func (w *world) startController(transport func(http.RoundTripper) http.RoundTripper) (stop func()) {
	w.Helper()
	restConfig := rest.CopyConfig(w.env.Config)
	if transport != nil {
		restConfig.Wrap(transport)
	}
	return runcontroller.StartWith(w, w.env, restConfig, w.namespace, func(r *controllers.APIKeyReconciler) {
		r.Now, r.CheckClock = w.clock.Now, func(context.Context) error { return nil } // the API server's clock goes with it
	})
}

// key returns a read-only key of this name that is not created yet. Its app name is "App <name>".
func (w *world) key(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	for _, c := range change {
		c(key)
	}
	return key
}

func appName(name string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.AppName = name }
}

func tokenHash(hash string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.TokenHash = hash }
}

func (w *world) create(object client.Object) {
	w.Helper()
	w.must(w.env.Client.Create(w.Context(), object))
}

func (w *world) createKey(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	w.Helper()
	key := w.key(name, change...)
	w.create(key)
	return key
}

// update changes a key as its owner would, however often somebody else writes it meanwhile.
func (w *world) update(name string, change func(*v1alpha1.APIKey)) {
	w.Helper()
	w.eventually("update "+name, func() bool {
		key := w.get(name)
		change(key)
		err := w.env.Client.Update(w.Context(), key)
		if err != nil && !apierrors.IsConflict(err) {
			w.Fatal(err)
		}
		return err == nil
	})
}

func (w *world) deactivate(name string) {
	w.Helper()
	w.update(name, func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) })
}

// touch makes the controller look at a key without changing what it declares.
func (w *world) touch(name, value string) {
	w.Helper()
	w.update(name, func(key *v1alpha1.APIKey) { metav1.SetMetaDataAnnotation(&key.ObjectMeta, "test/touched", value) })
}

// touchSpec makes the controller look at a key without changing its metadata.
func (w *world) touchSpec(name string) {
	w.Helper()
	w.update(name, func(key *v1alpha1.APIKey) { key.Spec.WriteAccess = !key.Spec.WriteAccess })
}

func (w *world) get(name string) *v1alpha1.APIKey {
	w.Helper()
	key := &v1alpha1.APIKey{}
	w.must(w.env.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, key))
	return key
}

func (w *world) keys() []v1alpha1.APIKey {
	w.Helper()
	list := &v1alpha1.APIKeyList{}
	w.must(w.env.Client.List(w.Context(), list, client.InNamespace(w.namespace)))
	return list.Items
}

// secret returns the Secret of this name, or nil.
func (w *world) secret(name string) *corev1.Secret {
	w.Helper()
	secret := &corev1.Secret{}
	err := w.env.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.must(err)
	return secret
}

// await waits until the key's Ready condition has this reason, and returns the key.
func (w *world) await(name, reason string) *v1alpha1.APIKey {
	w.Helper()
	var key *v1alpha1.APIKey
	w.eventually(name+" becomes "+reason, func() bool {
		key = w.get(name)
		ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == reason && key.Status.ObservedGeneration == key.Generation
	})
	return key
}

// awaitEvent waits for an event about a key and returns its type and note.
func (w *world) awaitEvent(name, reason string) (eventType, note string) {
	w.Helper()
	w.eventually("event "+reason+" of "+name, func() bool {
		list := &eventsv1.EventList{}
		w.must(w.env.Client.List(w.Context(), list, client.InNamespace(w.namespace)))
		for i := range list.Items {
			if event := &list.Items[i]; event.Regarding.Name == name && event.Reason == reason {
				eventType, note = event.Type, event.Note
				return true
			}
		}
		return false
	})
	return eventType, note
}

func (w *world) eventually(what string, condition func() bool) {
	w.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			w.Fatalf("waited %s in vain: %s; the keys are %s", patience, what, w.describe())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *world) describe() string {
	description := ""
	for _, key := range w.keys() {
		description += "\n  " + key.Name
		for _, condition := range key.Status.Conditions {
			description += " " + condition.Type + "=" + string(condition.Status) + "/" + condition.Reason + " (" + condition.Message + ")"
		}
	}
	return description
}

// assertIssued checks that the key has exactly one token, which is in the Secret of this name.
func (w *world) assertIssued(key *v1alpha1.APIKey, secretName string) {
	w.Helper()
	secret := w.secret(secretName)
	switch {
	case secret == nil:
		w.Fatalf("there is no Secret %q", secretName)
	case !apikey.IsIssued(key) || len(key.Status.Tokens) != 1:
		w.Fatalf("the key is not issued with one token: %v", key.Status.Tokens)
	case key.Status.Tokens[0].Hash != token.Hash(string(secret.Data["token"])):
		w.Fatal("the Secret does not hold a token of the recorded hash")
	}
}

func (w *world) assertConditions(key *v1alpha1.APIKey, want map[string]string) {
	w.Helper()
	got := map[string]string{}
	for _, condition := range key.Status.Conditions {
		got[condition.Type] = string(condition.Status) + " " + condition.Reason + ": " + condition.Message
		if condition.ObservedGeneration != key.Generation {
			w.Errorf("condition %s describes generation %d of %d", condition.Type, condition.ObservedGeneration, key.Generation)
		}
	}
	for conditionType, text := range want {
		if got[conditionType] != text {
			w.Errorf("condition %s of %s is %q, want %q", conditionType, key.Name, got[conditionType], text)
		}
		delete(got, conditionType)
	}
	if len(got) != 0 {
		w.Errorf("%s has conditions that it should not have: %v", key.Name, got)
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

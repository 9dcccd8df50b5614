// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

var apiKeys = schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "apikeys"}

func TestInvariant9_AuthenticationGoesOnWhileTheAPIServerIsStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Start(t))
	operator.StartController(t, w.env.Config)
	authenticator := startAuthenticator(t, w.env.Config, "--log-level=debug")
	gateway, health := authenticator.Address("authenticator"), authenticator.Address("health")
	tokens := w.issue("frontend", "backend", "revoked")
	for _, issued := range tokens {
		w.awaitAnswer(gateway, issued, http.StatusOK)
	}
	vigil := w.keepWatch(gateway, map[string]int{
		tokens["frontend"]: http.StatusOK,
		tokens["backend"]:  http.StatusOK,
		token.New():        http.StatusUnauthorized,
		"":                 http.StatusUnauthorized,
	})

	w.env.StopAPIServer()
	eventually(t, "the authenticator has missed the API server", func() bool {
		return strings.Count(authenticator.Printed(), "connection refused") >= 3
	})
	vigil.goOn(20)
	if status := w.ask(gateway, tokens["revoked"]); status != http.StatusOK {
		t.Errorf("a key that nobody revoked yet is answered %d", status)
	}
	if status, text := w.health(health, "/readyz"); status != http.StatusOK {
		t.Errorf("/readyz says %d %s", status, text)
	}

	must(t, w.env.StartAPIServer(t.Context()))
	w.deactivate("revoked")
	w.awaitAnswer(gateway, tokens["revoked"], http.StatusUnauthorized)
	w.awaitAnswer(gateway, w.issue("later")["later"], http.StatusOK)
	vigil.end()
}

func TestInvariant9_WhatHappenedWhileTheAuthenticatorWasCutOffCountsAfterwards(t *testing.T) {
	env := testenv.Shared(t)
	operator.StartController(t, env.Config)
	for name, expired := range map[string]bool{
		"the API server remembers what it has to tell": false,
		"the API server has forgotten":                 true,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, env)
			var watchIsExpired atomic.Bool
			proxy := startProxy(t, env.Config, func(forward http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Query().Has("watch") && watchIsExpired.Swap(false) {
						refuse(w, apierrors.NewResourceExpired("too old resource version"))
						return
					}
					forward.ServeHTTP(w, r)
				})
			})
			gateway := startAuthenticator(t, proxy.config).Address("authenticator")
			before := w.issue("kept", "revoked", "deleted", "replaced")
			for _, issued := range before {
				w.awaitAnswer(gateway, issued, http.StatusOK)
			}
			vigil := w.keepWatch(gateway, map[string]int{before["kept"]: http.StatusOK, token.New(): http.StatusUnauthorized})

			proxy.breakOff()
			w.deactivate("revoked")
			w.delete("deleted")
			w.delete("replaced")
			after := w.issue("replaced", "later")
			for _, issued := range before {
				if status := w.ask(gateway, issued); status != http.StatusOK {
					t.Errorf("a key that was good before the cut is answered %d during it", status)
				}
			}
			vigil.goOn(20)

			watchIsExpired.Store(expired)
			proxy.mend()
			for token, status := range map[string]int{
				before["revoked"]:  http.StatusUnauthorized,
				before["deleted"]:  http.StatusUnauthorized,
				before["replaced"]: http.StatusUnauthorized,
				after["replaced"]:  http.StatusOK,
				after["later"]:     http.StatusOK,
			} {
				w.awaitAnswer(gateway, token, status)
			}
			eventually(t, "a watch has met the API server that had forgotten", func() bool { return !watchIsExpired.Load() })
			w.awaitAnswer(gateway, w.issue("last")["last"], http.StatusOK)
			vigil.end()
		})
	}
}

func TestInvariant4_ThereIsNoVerdictBeforeTheFirstList(t *testing.T) {
	w := newWorld(t, testenv.Shared(t))
	issued := w.issueOnce("frontend")["frontend"]
	var api faultyAPI
	api.suffer(brokenConnection)
	authenticator := startAuthenticator(t, startProxy(t, w.env.Config, api.intercept).config)
	gateway, health := authenticator.Address("authenticator"), authenticator.Address("health")

	for _, fault := range []struct {
		what      string
		answer    http.HandlerFunc
		lastError string
	}{
		{"a call met a broken connection", brokenConnection, ""}, // client-go tries again by itself for a while
		{"a call met a missing right", missingRight, "apikeys.keys.squirrel.dev is forbidden: not yet"},
		{"a call met silence", silence, "apikeys.keys.squirrel.dev is forbidden: not yet"},
	} {
		await(t, fault.what, api.suffer(fault.answer))
		w.assertNoVerdict(gateway, issued)
		w.assertUnready(health, fault.lastError)
	}

	api.recover()
	eventually(t, "the first verdict is there", func() bool {
		status := w.ask(gateway, issued)
		if status != http.StatusServiceUnavailable && status != http.StatusOK {
			t.Fatalf("a valid key is answered %d", status)
		}
		return status == http.StatusOK
	})
	if status := w.ask(gateway, token.New()); status != http.StatusUnauthorized {
		t.Errorf("an unknown key is answered %d", status)
	}
	if status, text := w.health(health, "/readyz"); status != http.StatusOK || text != "ok\n" {
		t.Errorf("/readyz says %d %q", status, text)
	}
}

func brokenConnection(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func missingRight(w http.ResponseWriter, _ *http.Request) {
	refuse(w, apierrors.NewForbidden(apiKeys, "", errors.New("not yet")))
}

func silence(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// faultyAPI answers in the place of the API server. The zero value forwards.
type faultyAPI struct {
	fault atomic.Pointer[fault]
}

type fault struct {
	answer http.HandlerFunc
	ended  context.Context
	end    context.CancelFunc
	met    chan struct{}
	meet   func()
}

// suffer makes the API server answer all calls in this way until it suffers from something else or recovers, and tells when it did so for
// the first time.
func (f *faultyAPI) suffer(answer http.HandlerFunc) (met <-chan struct{}) {
	next := &fault{answer: answer, met: make(chan struct{})}
	next.ended, next.end = context.WithCancel(context.Background())
	next.meet = sync.OnceFunc(func() { close(next.met) })
	f.replace(next)
	return next.met
}

func (f *faultyAPI) recover() { f.replace(nil) }

func (f *faultyAPI) replace(next *fault) {
	if former := f.fault.Swap(next); former != nil {
		former.end()
	}
}

func (f *faultyAPI) intercept(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.fault.Load()
		if fault == nil {
			forward.ServeHTTP(w, r)
			return
		}
		fault.meet()
		fault.answer(w, r.WithContext(fault.ended))
	})
}

// assertNoVerdict asks every endpoint with every kind of credential.
func (w *world) assertNoVerdict(gateway, valid string) {
	w.Helper()
	const want = `{"errorCode":503,"errorMessage":"API keys cannot be checked at the moment: try again.","payload":null}`
	for path, method := range map[string]string{
		"/auth/envoy/" + w.namespace + "/orders": "",
		"/auth/nginx/" + w.namespace:             "X-Original-Method",
		"/auth/forward/" + w.namespace:           "X-Forwarded-Method",
	} {
		for name, credential := range map[string][2]string{
			"valid":            {"X-API-Key", valid},
			"valid, as Bearer": {"Authorization", "Bearer " + valid},
			"unknown":          {"X-API-Key", token.New()},
			"malformed":        {"X-API-Key", valid + "," + valid},
			"somebody else's":  {"Authorization", "Basic dXNlcjpwYXNzd29yZA=="},
			"missing":          {"X-Other", "1"},
		} {
			request, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "http://"+gateway+path, nil)
			must(w.T, err)
			request.Header.Set(credential[0], credential[1])
			if method != "" {
				request.Header.Set(method, http.MethodGet)
			}
			status, header, body := fetch(w.T, request)
			if status != http.StatusServiceUnavailable || body != want || header.Get("Retry-After") != "1" || header.Get("WWW-Authenticate") != "" {
				w.Errorf("%s, %s credential: answered %d %v %s", path, name, status, header, body)
			}
		}
	}
}

func (w *world) assertUnready(health, lastError string) {
	w.Helper()
	const beginning = "the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is installed, and " +
		"that this process may list and watch apikeys.keys.squirrel.dev (last error: "
	eventually(w.T, "/readyz says why", func() bool {
		status, text := w.health(health, "/readyz")
		if status != http.StatusServiceUnavailable || !strings.HasPrefix(text, beginning) {
			w.Fatalf("/readyz says %d %q", status, text)
		}
		return strings.HasSuffix(text, lastError+")\n")
	})
	if status, text := w.health(health, "/healthz"); status != http.StatusOK || text != "ok\n" {
		w.Errorf("/healthz says %d %q", status, text)
	}
}

func TestInvariant9_ARevokedKeyStaysRevokedWhenTheWatchCacheLags(t *testing.T) {
	w := newWorld(t, testenv.Shared(t))
	tokens := w.issueOnce("kept", "revoked", "deleted")
	lagging := startProxy(t, w.env.Config, newLaggingCache(w).intercept)
	first := startAuthenticator(t, w.env.Config)
	gateway := first.Address("authenticator")
	for _, issued := range tokens {
		w.awaitAnswer(gateway, issued, http.StatusOK)
	}
	w.deactivate("revoked")
	w.delete("deleted")
	w.awaitAnswer(gateway, tokens["revoked"], http.StatusUnauthorized)
	w.awaitAnswer(gateway, tokens["deleted"], http.StatusUnauthorized)
	first.Kill()
	w.assertLags(lagging)

	gateway = startAuthenticator(t, lagging.config).Address("authenticator")
	eventually(t, "the restarted authenticator has all keys", func() bool {
		for _, name := range []string{"revoked", "deleted"} {
			if status := w.ask(gateway, tokens[name]); status != http.StatusServiceUnavailable && status != http.StatusUnauthorized {
				t.Fatalf("the %s key is answered %d", name, status)
			}
		}
		return w.ask(gateway, tokens["kept"]) == http.StatusOK
	})
	vigil := w.keepWatch(gateway, map[string]int{
		tokens["kept"]:    http.StatusOK,
		tokens["revoked"]: http.StatusUnauthorized,
		tokens["deleted"]: http.StatusUnauthorized,
	})
	w.awaitAnswer(gateway, w.issueOnce("later")["later"], http.StatusOK) // a watch has gone on from the list
	vigil.end()
}

// laggingCache is an API server whose watch cache stands still. It answers from there whoever lets it.
type laggingCache struct {
	resourceVersion string
	list            []byte
}

// newLaggingCache returns a cache that stands still from now on.
func newLaggingCache(w *world) *laggingCache {
	w.Helper()
	keys := &v1alpha1.APIKeyList{}
	must(w.T, w.env.Client.List(w.Context(), keys))
	keys.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("APIKeyList"))
	return &laggingCache{resourceVersion: keys.ResourceVersion, list: marshal(w.T, keys)}
}

func (c *laggingCache) intercept(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		resourceVersion := query.Get("resourceVersion")
		switch {
		case query.Has("watch") && (resourceVersion == "0" || resourceVersion == c.resourceVersion):
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done() // nothing has happened since
		case resourceVersion == "0":
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(c.list)
		default:
			forward.ServeHTTP(w, r)
		}
	})
}

// assertLags proves that this test could fail.
func (w *world) assertLags(lagging *proxy) {
	w.Helper()
	for resourceVersion, want := range map[string]int{"0": 3, "": 1} {
		keys := w.list(lagging, resourceVersion)
		active := 0
		for _, key := range keys.Items {
			if key.Namespace == w.namespace && *key.Spec.Active {
				active++
			}
		}
		if active != want {
			w.Fatalf("a list at resourceVersion %q has %d active keys, want %d", resourceVersion, active, want)
		}
	}
}

func (w *world) list(api *proxy, resourceVersion string) *v1alpha1.APIKeyList {
	w.Helper()
	reader, err := client.New(api.config, client.Options{Scheme: w.env.Scheme})
	must(w.T, err)
	keys := &v1alpha1.APIKeyList{}
	must(w.T, reader.List(w.Context(), keys, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: resourceVersion}}))
	return keys
}

// refuse answers as the API server does.
func refuse(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	body, marshalErr := json.Marshal(status)
	if marshalErr != nil {
		panic(marshalErr)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(body)
}

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
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

var apiKeys = schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "apikeys"}

func TestInvariant9_AuthenticationGoesOnWhileTheAPIServerIsStopped(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testenv.Start(t))
	operator.StartController(t, f.Env.Config)
	authenticator := startAuthenticator(t, f.Env.Config, "--log-level=debug")
	gateway, health := authenticator.Address("authenticator"), authenticator.Address("health")
	tokens := f.issue("frontend", "backend", "revoked")
	for _, issued := range tokens {
		f.awaitAnswer(gateway, issued, http.StatusOK)
	}
	vigil := f.keepWatch(gateway, map[string]int{
		tokens["frontend"]: http.StatusOK,
		tokens["backend"]:  http.StatusOK,
		token.New():        http.StatusUnauthorized,
		"":                 http.StatusUnauthorized,
	})

	f.Env.StopAPIServer()
	framework.Eventually(t, "the authenticator has missed the API server", func() bool {
		return strings.Count(authenticator.Output(), "connection refused") >= 3
	})
	vigil.goOn(20)
	if status := f.ask(gateway, tokens["revoked"]); status != http.StatusOK {
		t.Errorf("a key that nobody revoked yet is answered %d", status)
	}
	if status, text := f.health(health, "/readyz"); status != http.StatusOK {
		t.Errorf("/readyz says %d %s", status, text)
	}

	framework.Must(t, f.Env.StartAPIServer(t.Context()))
	f.deactivate("revoked")
	f.awaitAnswer(gateway, tokens["revoked"], http.StatusUnauthorized)
	f.awaitAnswer(gateway, f.issue("later")["later"], http.StatusOK)
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
			f := newFixture(t, env)
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
			before := f.issue("kept", "revoked", "deleted", "replaced")
			for _, issued := range before {
				f.awaitAnswer(gateway, issued, http.StatusOK)
			}
			vigil := f.keepWatch(gateway, map[string]int{before["kept"]: http.StatusOK, token.New(): http.StatusUnauthorized})

			proxy.breakOff()
			f.deactivate("revoked")
			f.delete("deleted")
			f.delete("replaced")
			after := f.issue("replaced", "later")
			for _, issued := range before {
				if status := f.ask(gateway, issued); status != http.StatusOK {
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
				f.awaitAnswer(gateway, token, status)
			}
			framework.Eventually(t, "a watch has met the API server that had forgotten", func() bool { return !watchIsExpired.Load() })
			f.awaitAnswer(gateway, f.issue("last")["last"], http.StatusOK)
			vigil.end()
		})
	}
}

func TestInvariant4_ThereIsNoVerdictBeforeTheFirstList(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	issued := f.issueOnce("frontend")["frontend"]
	var api faultyAPI
	api.suffer(brokenConnection)
	authenticator := startAuthenticator(t, startProxy(t, f.Env.Config, api.intercept).config)
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
		f.assertNoVerdict(gateway, issued)
		f.assertUnready(health, fault.lastError)
	}

	api.recover()
	framework.Eventually(t, "the first verdict is there", func() bool {
		status := f.ask(gateway, issued)
		if status != http.StatusServiceUnavailable && status != http.StatusOK {
			t.Fatalf("a valid key is answered %d", status)
		}
		return status == http.StatusOK
	})
	if status := f.ask(gateway, token.New()); status != http.StatusUnauthorized {
		t.Errorf("an unknown key is answered %d", status)
	}
	if status, text := f.health(health, "/readyz"); status != http.StatusOK || text != "ok\n" {
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
func (f *fixture) assertNoVerdict(gateway, valid string) {
	f.Helper()
	const want = `{"errorCode":503,"errorMessage":"API keys cannot be checked at the moment: try again.","payload":null}`
	for path, method := range map[string]string{
		"/auth/envoy/" + f.Namespace + "/orders": "",
		"/auth/nginx/" + f.Namespace:             "X-Original-Method",
		"/auth/forward/" + f.Namespace:           "X-Forwarded-Method",
	} {
		for name, credential := range map[string][2]string{
			"valid":            {"X-API-Key", valid},
			"valid, as Bearer": {"Authorization", "Bearer " + valid},
			"unknown":          {"X-API-Key", token.New()},
			"malformed":        {"X-API-Key", valid + "," + valid},
			"somebody else's":  {"Authorization", "Basic dXNlcjpwYXNzd29yZA=="},
			"missing":          {"X-Other", "1"},
		} {
			request, err := http.NewRequestWithContext(f.Context(), http.MethodGet, "http://"+gateway+path, nil)
			framework.Must(f, err)
			request.Header.Set(credential[0], credential[1])
			if method != "" {
				request.Header.Set(method, http.MethodGet)
			}
			status, header, body := fetch(f, request)
			if status != http.StatusServiceUnavailable || body != want || header.Get("Retry-After") != "1" || header.Get("WWW-Authenticate") != "" {
				f.Errorf("%s, %s credential: answered %d %v %s", path, name, status, header, body)
			}
		}
	}
}

func (f *fixture) assertUnready(health, lastError string) {
	f.Helper()
	const beginning = "the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is installed, and " +
		"that this process may list and watch apikeys.keys.squirrel.dev (last error: "
	framework.Eventually(f, "/readyz says why", func() bool {
		status, text := f.health(health, "/readyz")
		if status != http.StatusServiceUnavailable || !strings.HasPrefix(text, beginning) {
			f.Fatalf("/readyz says %d %q", status, text)
		}
		return strings.HasSuffix(text, lastError+")\n")
	})
	if status, text := f.health(health, "/healthz"); status != http.StatusOK || text != "ok\n" {
		f.Errorf("/healthz says %d %q", status, text)
	}
}

func TestInvariant9_ARevokedKeyStaysRevokedWhenTheWatchCacheLags(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	tokens := f.issueOnce("kept", "revoked", "deleted")
	lagging := startProxy(t, f.Env.Config, newLaggingCache(f).intercept)
	first := startAuthenticator(t, f.Env.Config)
	gateway := first.Address("authenticator")
	for _, issued := range tokens {
		f.awaitAnswer(gateway, issued, http.StatusOK)
	}
	f.deactivate("revoked")
	f.delete("deleted")
	f.awaitAnswer(gateway, tokens["revoked"], http.StatusUnauthorized)
	f.awaitAnswer(gateway, tokens["deleted"], http.StatusUnauthorized)
	first.Kill()
	f.assertLags(lagging)

	gateway = startAuthenticator(t, lagging.config).Address("authenticator")
	framework.Eventually(t, "the restarted authenticator has all keys", func() bool {
		for _, name := range []string{"revoked", "deleted"} {
			if status := f.ask(gateway, tokens[name]); status != http.StatusServiceUnavailable && status != http.StatusUnauthorized {
				t.Fatalf("the %s key is answered %d", name, status)
			}
		}
		return f.ask(gateway, tokens["kept"]) == http.StatusOK
	})
	vigil := f.keepWatch(gateway, map[string]int{
		tokens["kept"]:    http.StatusOK,
		tokens["revoked"]: http.StatusUnauthorized,
		tokens["deleted"]: http.StatusUnauthorized,
	})
	f.awaitAnswer(gateway, f.issueOnce("later")["later"], http.StatusOK) // a watch has gone on from the list
	vigil.end()
}

// laggingCache is an API server whose watch cache stands still. It answers from there whoever lets it.
type laggingCache struct {
	resourceVersion string
	list            []byte
}

// newLaggingCache returns a cache that stands still from now on.
func newLaggingCache(f *fixture) *laggingCache {
	f.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), keys))
	keys.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("APIKeyList"))
	return &laggingCache{resourceVersion: keys.ResourceVersion, list: marshal(f, keys)}
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
func (f *fixture) assertLags(lagging *proxy) {
	f.Helper()
	for resourceVersion, want := range map[string]int{"0": 3, "": 1} {
		keys := f.list(lagging, resourceVersion)
		active := 0
		for _, key := range keys.Items {
			if key.Namespace == f.Namespace && *key.Spec.Active {
				active++
			}
		}
		if active != want {
			f.Fatalf("a list at resourceVersion %q has %d active keys, want %d", resourceVersion, active, want)
		}
	}
}

func (f *fixture) list(api *proxy, resourceVersion string) *v1alpha1.APIKeyList {
	f.Helper()
	reader, err := client.New(api.config, client.Options{Scheme: f.Env.Scheme})
	framework.Must(f, err)
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, reader.List(f.Context(), keys, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: resourceVersion}}))
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

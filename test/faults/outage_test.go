// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
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

func TestInvariant9_AuthenticationContinuesWhileTheAPIServerIsStopped(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testenv.Start(t))
	operator.StartController(t, f.Env.Config)
	authenticator := startAuthenticator(t, f.Env.Config, "--log-level=debug")
	gateway, health := authenticator.Address("authenticator"), authenticator.Address("health")
	tokens := f.issue("frontend", "backend", "revoked")
	for _, issued := range tokens {
		f.awaitStatus(gateway, issued, http.StatusOK)
	}
	poller := f.startPolling(gateway, map[string]int{
		tokens["frontend"]: http.StatusOK,
		tokens["backend"]:  http.StatusOK,
		token.New():        http.StatusUnauthorized,
		"":                 http.StatusUnauthorized,
	})

	f.Env.StopAPIServer()
	framework.Eventually(t, "the authenticator has failed to reach the API server", func() bool {
		return strings.Count(authenticator.Output(), "connection refused") >= 3
	})
	poller.awaitRounds(20)
	if status := f.check(gateway, tokens["revoked"]); status != http.StatusOK {
		t.Errorf("got status %d for a valid key, want 200", status)
	}
	if status, text := f.get(health, "/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: got %d %s, want 200", status, text)
	}

	framework.Must(t, f.Env.StartAPIServer(t.Context()))
	f.deactivate("revoked")
	f.awaitStatus(gateway, tokens["revoked"], http.StatusUnauthorized)
	f.awaitStatus(gateway, f.issue("later")["later"], http.StatusOK)
	poller.stop()
}

func TestInvariant9_ChangesDuringADisconnectionTakeEffectAfterIt(t *testing.T) {
	env := testenv.Shared(t)
	operator.StartController(t, env.Config)
	for name, expired := range map[string]bool{"the watch resumes": false, "the watch has expired": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, env)
			var watchIsExpired atomic.Bool
			proxy := startProxy(t, env.Config, func(forward http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Query().Has("watch") && watchIsExpired.Swap(false) {
						respondError(w, apierrors.NewResourceExpired("too old resource version"))
						return
					}
					forward.ServeHTTP(w, r)
				})
			})
			gateway := startAuthenticator(t, proxy.config).Address("authenticator")
			before := f.issue("kept", "revoked", "deleted", "replaced")
			for _, issued := range before {
				f.awaitStatus(gateway, issued, http.StatusOK)
			}
			poller := f.startPolling(gateway, map[string]int{before["kept"]: http.StatusOK, token.New(): http.StatusUnauthorized})

			proxy.disconnect()
			f.deactivate("revoked")
			f.deleteKey("deleted")
			f.deleteKey("replaced")
			after := f.issue("replaced", "later")
			for _, issued := range before {
				if status := f.check(gateway, issued); status != http.StatusOK {
					t.Errorf("got status %d while disconnected, want 200", status)
				}
			}
			poller.awaitRounds(20)

			watchIsExpired.Store(expired)
			proxy.reconnect()
			for token, status := range map[string]int{
				before["revoked"]:  http.StatusUnauthorized,
				before["deleted"]:  http.StatusUnauthorized,
				before["replaced"]: http.StatusUnauthorized,
				after["replaced"]:  http.StatusOK,
				after["later"]:     http.StatusOK,
			} {
				f.awaitStatus(gateway, token, status)
			}
			framework.Eventually(t, "a watch has expired", func() bool { return !watchIsExpired.Load() })
			f.awaitStatus(gateway, f.issue("last")["last"], http.StatusOK)
			poller.stop()
		})
	}
}

func TestInvariant4_ChecksGet503BeforeTheFirstList(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	issued := f.issueWithTemporaryController("frontend")["frontend"]
	var api faultyAPI
	api.inject(closeConnection)
	authenticator := startAuthenticator(t, startProxy(t, f.Env.Config, api.intercept).config)
	gateway, health := authenticator.Address("authenticator"), authenticator.Address("health")

	for _, fault := range []struct {
		description string
		respond     http.HandlerFunc
		lastError   string
	}{
		{"a connection was closed", closeConnection, ""}, // client-go retries for a while before it reports the error
		{"a request was forbidden", respondForbidden, "apikeys.keys.squirrel.dev is forbidden: not yet"},
		{"a request hangs", hang, "apikeys.keys.squirrel.dev is forbidden: not yet"},
	} {
		framework.Receive(t, framework.Timeout, fault.description, api.inject(fault.respond))
		f.assertChecksUnavailable(gateway, issued)
		f.assertUnready(health, fault.lastError)
	}

	api.recover()
	framework.Eventually(t, "checks are possible", func() bool {
		status := f.check(gateway, issued)
		if status != http.StatusServiceUnavailable && status != http.StatusOK {
			t.Fatalf("got status %d for a valid key, want 503 or 200", status)
		}
		return status == http.StatusOK
	})
	if status := f.check(gateway, token.New()); status != http.StatusUnauthorized {
		t.Errorf("got status %d for an unknown key, want 401", status)
	}
	if status, text := f.get(health, "/readyz"); status != http.StatusOK || text != "ok\n" {
		t.Errorf("/readyz: got %d %q, want 200 and \"ok\\n\"", status, text)
	}
}

func closeConnection(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func respondForbidden(w http.ResponseWriter, _ *http.Request) {
	respondError(w, apierrors.NewForbidden(apiKeys, "", errors.New("not yet")))
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// faultyAPI injects faults into the requests that a proxy gets. The zero value forwards them.
type faultyAPI struct {
	fault atomic.Pointer[fault]
}

type fault struct {
	respond  http.HandlerFunc
	ctx      context.Context // until the fault ends
	end      context.CancelFunc
	observed chan struct{}
	observe  func()
}

// inject responds to all requests in this way until another fault is injected or the API recovers. It returns a channel that is closed at
// the first of these requests.
func (f *faultyAPI) inject(respond http.HandlerFunc) (observed <-chan struct{}) {
	next := &fault{respond: respond, observed: make(chan struct{})}
	next.ctx, next.end = context.WithCancel(context.Background())
	next.observe = sync.OnceFunc(func() { close(next.observed) })
	f.replace(next)
	return next.observed
}

func (f *faultyAPI) recover() { f.replace(nil) }

func (f *faultyAPI) replace(next *fault) {
	if previous := f.fault.Swap(next); previous != nil {
		previous.end()
	}
}

func (f *faultyAPI) intercept(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.fault.Load()
		if fault == nil {
			forward.ServeHTTP(w, r)
			return
		}
		fault.observe()
		fault.respond(w, r.WithContext(fault.ctx))
	})
}

// assertChecksUnavailable expects that every endpoint responds 503 to every kind of credential.
func (f *fixture) assertChecksUnavailable(gateway, valid string) {
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
			"of another kind":  {"Authorization", "Basic dXNlcjpwYXNzd29yZA=="},
			"missing":          {"X-Other", "1"},
		} {
			request, err := http.NewRequestWithContext(f.Context(), http.MethodGet, "http://"+gateway+path, nil)
			framework.Must(f, err)
			request.Header.Set(credential[0], credential[1])
			if method != "" {
				request.Header.Set(method, http.MethodGet)
			}
			status, header, body := send(f, request)
			if status != http.StatusServiceUnavailable || body != want || header.Get("Retry-After") != "1" || header.Get("WWW-Authenticate") != "" {
				f.Errorf("%s, %s credential: got %d %v %s, want 503 and %s", path, name, status, header, body, want)
			}
		}
	}
}

func (f *fixture) assertUnready(health, lastError string) {
	f.Helper()
	const beginning = "the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is installed, and " +
		"that this process may list and watch apikeys.keys.squirrel.dev (last error: "
	framework.Eventually(f, "/readyz returns the last error", func() bool {
		status, text := f.get(health, "/readyz")
		if status != http.StatusServiceUnavailable || !strings.HasPrefix(text, beginning) {
			f.Fatalf("/readyz: got %d %q, want 503 and a text that starts with %q", status, text, beginning)
		}
		return strings.HasSuffix(text, lastError+")\n")
	})
	if status, text := f.get(health, "/healthz"); status != http.StatusOK || text != "ok\n" {
		f.Errorf("/healthz: got %d %q, want 200 and \"ok\\n\"", status, text)
	}
}

func TestInvariant9_ARestartWithAStaleWatchCacheKeepsRevocations(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	tokens := f.issueWithTemporaryController("kept", "revoked", "deleted")
	stale := startProxy(t, f.Env.Config, newStaleWatchCache(f).intercept)
	first := startAuthenticator(t, f.Env.Config)
	gateway := first.Address("authenticator")
	for _, issued := range tokens {
		f.awaitStatus(gateway, issued, http.StatusOK)
	}
	f.deactivate("revoked")
	f.deleteKey("deleted")
	f.awaitStatus(gateway, tokens["revoked"], http.StatusUnauthorized)
	f.awaitStatus(gateway, tokens["deleted"], http.StatusUnauthorized)
	first.Kill()
	f.assertStale(stale)

	gateway = startAuthenticator(t, stale.config).Address("authenticator")
	framework.Eventually(t, "the restarted authenticator has listed all keys", func() bool {
		for _, name := range []string{"revoked", "deleted"} {
			if status := f.check(gateway, tokens[name]); status != http.StatusServiceUnavailable && status != http.StatusUnauthorized {
				t.Fatalf("got status %d for the %s key, want 503 or 401", status, name)
			}
		}
		return f.check(gateway, tokens["kept"]) == http.StatusOK
	})
	poller := f.startPolling(gateway, map[string]int{
		tokens["kept"]:    http.StatusOK,
		tokens["revoked"]: http.StatusUnauthorized,
		tokens["deleted"]: http.StatusUnauthorized,
	})
	f.awaitStatus(gateway, f.issueWithTemporaryController("later")["later"], http.StatusOK) // the watch has started after the list
	poller.stop()
}

// staleWatchCache serves the requests that accept any resource version from a watch cache that gets no events.
type staleWatchCache struct {
	resourceVersion string
	list            []byte
}

// newStaleWatchCache returns a cache that gets no events from now on.
func newStaleWatchCache(f *fixture) *staleWatchCache {
	f.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(f, f.Env.Client.List(f.Context(), keys))
	keys.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("APIKeyList"))
	return &staleWatchCache{resourceVersion: keys.ResourceVersion, list: marshal(f, keys)}
}

func (c *staleWatchCache) intercept(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		resourceVersion := query.Get("resourceVersion")
		switch {
		case query.Has("watch") && (resourceVersion == "0" || resourceVersion == c.resourceVersion):
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done() // without events
		case resourceVersion == "0":
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(c.list)
		default:
			forward.ServeHTTP(w, r)
		}
	})
}

// assertStale checks that the proxy serves stale lists, so that the test can fail.
func (f *fixture) assertStale(stale *proxy) {
	f.Helper()
	for resourceVersion, want := range map[string]int{"0": 3, "": 1} {
		keys := f.list(stale, resourceVersion)
		active := 0
		for _, key := range keys.Items {
			if key.Namespace == f.Namespace && *key.Spec.Active {
				active++
			}
		}
		if active != want {
			f.Fatalf("got %d active keys in a list at resourceVersion %q, want %d", active, resourceVersion, want)
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

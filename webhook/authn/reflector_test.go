// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// run runs a new Keyring until the test ends.
func run(t *testing.T, config *rest.Config, namespace string) *authn.Keyring {
	t.Helper()
	keyring := authn.NewKeyring()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := keyring.Run(ctx, config, namespace); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return keyring
}

// create creates a key and issues it.
func create(t *testing.T, env *testenv.Env, namespace, name, plaintext string) *v1alpha1.APIKey {
	t.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	framework.Must(t, env.Client.Create(t.Context(), key))
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(plaintext), Hint: "sq_", NotBefore: new(metav1.Now())}}
	framework.Must(t, env.Client.Status().Update(t.Context(), key))
	return key
}

// verdict returns a function that decides a request with a token, for Eventually.
func verdict(keyring *authn.Keyring, namespace, plaintext string) func() outcome {
	return func() outcome { return outcomeOf(decide(keyring, namespace, plaintext)) }
}

func eventually(g *WithT, get any) AsyncAssertion {
	return g.Eventually(get).WithTimeout(framework.Timeout).WithPolling(5 * time.Millisecond)
}

func TestRun_FollowsTheKubernetesAPI(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop, bank := env.Namespace(t), env.Namespace(t)
	listed := create(t, env, shop, "listed", "listed's")
	everywhere, shopOnly := run(t, env.Config, metav1.NamespaceAll), run(t, env.Config, shop)

	both := []*authn.Keyring{everywhere, shopOnly}
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "listed's")).Should(Equal(granted(string(listed.UID))))
		g.Expect(decide(keyring, shop, "listed's").Key).To(HaveField("AppName", "App listed"))
	}

	added := create(t, env, shop, "added", "added's")
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "added's")).Should(Equal(granted(string(added.UID))))
	}

	added.Spec.Active = new(false)
	g.Expect(env.Client.Update(t.Context(), added)).To(Succeed())
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "added's")).Should(
			Equal(outcome{authn.Unauthenticated, authn.ReasonKeyDeactivated, string(added.UID)}))
	}

	g.Expect(env.Client.Delete(t.Context(), listed)).To(Succeed())
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "listed's")).Should(Equal(unknown))
	}

	elsewhere := create(t, env, bank, "elsewhere", "elsewhere's")
	after := create(t, env, shop, "after", "after's") // its event follows that of the key before
	for _, keyring := range both {
		eventually(g, verdict(keyring, shop, "after's")).Should(Equal(granted(string(after.UID))))
	}
	eventually(g, verdict(everywhere, bank, "elsewhere's")).Should(Equal(granted(string(elsewhere.UID))))
	g.Expect(verdict(shopOnly, bank, "elsewhere's")()).To(Equal(unknown))
}

func TestInvariant9_RequestsAreDecidedFromMemoryWhileTheAPIIsUnreachable(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Start(t)
	shop := env.Namespace(t)
	kept, revoked := create(t, env, shop, "kept", "kept's"), create(t, env, shop, "revoked", "revoked's")
	running := run(t, env.Config, metav1.NamespaceAll)
	eventually(g, verdict(running, shop, "revoked's")).Should(Equal(granted(string(revoked.UID))))

	env.StopAPIServer()
	restarted := run(t, env.Config, metav1.NamespaceAll)
	ready := authn.NewAuthenticator(restarted, 0, clock).Ready
	eventually(g, ready).Should(MatchError(ContainSubstring("connection refused")))
	g.Expect(verdict(restarted, shop, "kept's")()).To(Equal(outcome{authn.Unavailable, authn.ReasonNotSynced, ""}))
	g.Expect(verdict(restarted, shop, "unknown")()).To(Equal(outcome{authn.Unavailable, authn.ReasonNotSynced, ""}))
	g.Expect(verdict(running, shop, "kept's")()).To(Equal(granted(string(kept.UID))))
	g.Expect(verdict(running, shop, "revoked's")()).To(Equal(granted(string(revoked.UID))))
	g.Expect(verdict(running, shop, "unknown")()).To(Equal(unknown))

	g.Expect(env.StartAPIServer(t.Context())).To(Succeed())
	g.Expect(env.Client.Delete(t.Context(), revoked)).To(Succeed())
	deleted := time.Now()
	eventually(g, verdict(running, shop, "revoked's")).Should(Equal(unknown))
	t.Logf("the key was refused %v after it was deleted", time.Since(deleted).Round(time.Millisecond))
	g.Expect(verdict(running, shop, "kept's")()).To(Equal(granted(string(kept.UID))))
	eventually(g, ready).Should(Succeed())
	g.Expect(verdict(restarted, shop, "kept's")()).To(Equal(granted(string(kept.UID))))
	g.Expect(verdict(restarted, shop, "revoked's")()).To(Equal(unknown))
}

func TestInvariant9_ListsAreConsistent(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop := env.Namespace(t)
	key := create(t, env, shop, "k", "t")
	recorder := &listRecorder{}
	config := rest.CopyConfig(env.Config)
	config.Wrap(recorder.wrap)
	keyring := run(t, config, shop)

	eventually(g, recorder.lists).Should(HaveLen(2)) // at the start, and after the first watch has expired
	for _, query := range recorder.lists() {
		g.Expect(query).To(Equal(url.Values{"limit": {"10000"}}), "with a resourceVersion, a cache that lags could respond")
	}
	eventually(g, verdict(keyring, shop, "t")).Should(Equal(granted(string(key.UID))))
}

func TestInvariant4_NoKeyIsLostWhenAListExpiresBetweenItsPages(t *testing.T) {
	g := NewWithT(t)
	api := newAPIServer(t)
	keyring := run(t, api.config, metav1.NamespaceAll)
	const first, second = `{"kind":"APIKey","metadata":{"namespace":"shop","name":"a"}}`, `{"kind":"APIKey","metadata":{"namespace":"shop","name":"b"},
		"spec":{"readAccess":true},"status":{"tokens":[{"hash":%q,"notBefore":"2026-01-01T00:00:00Z"}]}}`
	api.awaitList()
	api.respond(listOf("forgotten", first))
	g.Expect(api.awaitList()).To(Equal("forgotten"))
	api.respondWith(http.StatusGone, expired)

	g.Expect(api.awaitList()).To(BeEmpty(), "the list starts again")
	g.Expect(keyring.Synced()).To(BeFalse())
	api.respond(listOf("remembered", first))
	g.Expect(api.awaitList()).To(Equal("remembered"))
	api.respond(listOf("", fmt.Sprintf(second, token.Hash("b"))))
	eventually(g, keyring.Synced).Should(BeTrue())
	expect(t, keyring, "shop", "b", granted(""))
}

func TestRun_StopsWhileTheAPIIsSilent(t *testing.T) {
	for name, reach := range map[string]func(*apiServer){
		"in a list":  func(*apiServer) {},
		"in a watch": func(a *apiServer) { a.respond(listOf("")); <-a.watched },
	} {
		t.Run(name, func(t *testing.T) {
			api := newAPIServer(t)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- authn.NewKeyring().Run(ctx, api.config, metav1.NamespaceAll) }()
			api.awaitList()
			reach(api)
			stop()
			NewWithT(t).Eventually(ended).WithTimeout(framework.Timeout).Should(Receive(BeNil()))
		})
	}
}

func TestInvariant9_ABookmarkResetsTheStaleness(t *testing.T) {
	g := NewWithT(t)
	api := newAPIServer(t)
	keyring := run(t, api.config, metav1.NamespaceAll)
	api.awaitList()
	api.respond(listOf(""))
	eventually(g, keyring.Synced).Should(BeTrue())

	before := time.Now()
	seenAfterThat := func() bool { return keyring.Staleness(before) < 0 }
	g.Expect(seenAfterThat()).To(BeFalse())
	api.sendEvent(`{"type":"BOOKMARK","object":{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey",
		"metadata":{"resourceVersion":"6","creationTimestamp":null},"spec":{"appName":""}}}`)
	eventually(g, seenAfterThat).Should(BeTrue())
}

func TestRun_ReturnsAnErrorForAnInvalidConfig(t *testing.T) {
	err := authn.NewKeyring().Run(t.Context(), &rest.Config{Host: "not a host"}, metav1.NamespaceAll)
	const want = `cannot watch APIKeys: parse "http://not a host": invalid character " " in host name`
	if err == nil || err.Error() != want {
		t.Errorf("Run() = %v, want %s", err, want)
	}
}

// Such a refusal lasts forever in a namespace that was deleted.
func TestRun_LimitsTheLogOfARefusedList(t *testing.T) {
	env := testenv.Shared(t)
	config := env.User(t, "keyring-without-permissions")
	lists := make(chan struct{}, 100)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			lists <- struct{}{}
			return next.RoundTrip(request)
		})
	})
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logr.FromSlogHandler(slog.NewJSONHandler(&log, nil))))
	done := make(chan error, 1)
	go func() { done <- authn.NewKeyring().Run(ctx, config, env.Namespace(t)) }()
	for range 7 {
		<-lists
	}
	cancel()
	framework.Must(t, <-done)
	for message, want := range map[string]int{"Unable to list or watch APIKeys, retrying": 1, "Failed to watch": 3} {
		if got := strings.Count(log.String(), message); got != want {
			t.Errorf("got %q %d times, want %d:\n%s", message, got, want, &log)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

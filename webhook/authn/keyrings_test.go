// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const reader = "keyrings-reader"

// allowReader lets the user reader list and watch the keys of a namespace.
func allowReader(t *testing.T, env *testenv.Env, namespace string) *rbacv1.RoleBinding {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: reader}
	framework.Must(t, env.Client.Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"keys.squirrel.dev"}, Resources: []string{"apikeys"}, Verbs: []string{"list", "watch"},
	}}}))
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: reader},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: reader}},
	}
	framework.Must(t, env.Client.Create(t.Context(), binding))
	return binding
}

// runKeyrings runs Keyrings of these namespaces until the test ends.
func runKeyrings(t *testing.T, config *rest.Config, namespaces ...string) *authn.Keyrings {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	keyrings, done := authn.NewKeyrings(namespaces), make(chan error, 1)
	go func() { done <- keyrings.Run(ctx, config) }()
	t.Cleanup(func() {
		cancel()
		framework.Must(t, <-done)
	})
	return keyrings
}

func TestKeyrings_ServeEachNamespaceWithThePermissionsInThatNamespace(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop, bank, other := env.Namespace(t), env.Namespace(t), env.Namespace(t)
	allowReader(t, env, shop)
	inShop := create(t, env, shop, "frontend", "shop's")
	create(t, env, other, "frontend", "other's")
	keyrings := runKeyrings(t, env.User(t, reader), shop, bank)
	authenticator := authn.NewAuthenticator(keyrings, 0, clock)
	decide := func(namespace, plaintext string) func() outcome {
		return func() outcome {
			return outcomeOf(authenticator.Decide(authn.Request{Namespace: namespace, Credential: authn.NewCredential(plaintext)}))
		}
	}
	unavailable := func(reason authn.Reason) outcome { return outcome{authn.Unavailable, reason, ""} }

	eventually(g, decide(shop, "shop's")).Should(Equal(granted(string(inShop.UID))))
	g.Expect(decide(shop, "unknown")()).To(Equal(unknown))
	g.Expect(decide(bank, "shop's")()).To(Equal(unavailable(authn.ReasonNotSynced)))
	for _, plaintext := range []string{"other's", "shop's", "unknown"} {
		g.Expect(decide(other, plaintext)()).To(Equal(unavailable(authn.ReasonNamespaceNotServed)))
	}
	g.Expect(authenticator.HasKeys(shop)).To(BeTrue())
	g.Expect(authenticator.HasKeys(other)).To(BeFalse())
	g.Expect(authenticator.Accepts(shop, "frontend", string(inShop.UID))).To(BeTrue())
	g.Expect(authenticator.Accepts(other, "frontend", string(inShop.UID))).To(BeFalse())
	eventually(g, authenticator.Ready).Should(Succeed(), "the API refuses to list one namespace, and the other one is served")
	g.Expect(keyrings.Synced()).To(BeTrue())

	allowReader(t, env, bank)
	inBank := create(t, env, bank, "frontend", "bank's")
	eventually(g, decide(bank, "bank's")).Should(Equal(granted(string(inBank.UID))))
	g.Expect(keyrings.Synced()).To(BeTrue())
	g.Expect(keyrings.Len()).To(Equal(2))
	g.Expect(keyrings.Staleness(time.Now())).To(BeNumerically("<", time.Minute))
	g.Expect(authenticator.Ready()).To(Succeed())
}

func TestKeyrings_AreNotReadyWithoutAnyNamespace(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop := env.Namespace(t)
	authenticator := authn.NewAuthenticator(runKeyrings(t, env.User(t, "keyrings-unauthorized"), shop), 0, clock)
	eventually(g, authenticator.Ready).Should(MatchError(fmt.Sprintf("namespace %s: the APIKeys have not been listed yet: check that the "+
		"Kubernetes API is reachable, that the CRD of APIKey is installed, and that this process may list and watch apikeys.keys.squirrel.dev "+
		`(last error: apikeys.keys.squirrel.dev is forbidden: User "keyrings-unauthorized" cannot list resource "apikeys" in API group `+
		`"keys.squirrel.dev" in the namespace %q)`, shop, shop)))
}

func TestKeyrings_AreNotReadyBeforeEachNamespaceIsListed(t *testing.T) {
	keyrings := authn.NewKeyrings([]string{"shop", "bank"})
	const notListed = "the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is " +
		"installed, and that this process may list and watch apikeys.keys.squirrel.dev (last error: none)"
	const want = "namespace bank: " + notListed + "\nnamespace shop: " + notListed
	if err := authn.NewAuthenticator(keyrings, 0, clock).Ready(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A tenant that withdraws the permission, or deletes its namespace, stops no other checks than those of its keys.
func TestInvariant10_ANamespaceThatCannotBeReadStopsNoOther(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop, bank := env.Namespace(t), env.Namespace(t)
	allowReader(t, env, shop)
	withdrawn := allowReader(t, env, bank)
	create(t, env, shop, "frontend", "shop's")
	create(t, env, bank, "frontend", "bank's")
	user := env.User(t, reader)
	running := runKeyrings(t, user, shop, bank)
	eventually(g, running.Len).Should(Equal(2))

	g.Expect(env.Client.Delete(t.Context(), withdrawn)).To(Succeed())
	mayList := func() bool {
		c, err := client.New(user, client.Options{Scheme: env.Scheme})
		framework.Must(t, err)
		return c.List(t.Context(), &v1alpha1.APIKeyList{}, client.InNamespace(bank)) == nil
	}
	eventually(g, mayList).Should(BeFalse())
	restarted := authn.NewAuthenticator(runKeyrings(t, user, shop, bank), 0, clock)
	eventually(g, restarted.Ready).Should(Succeed())
	decide := func(a *authn.Authenticator, namespace, plaintext string) authn.Decision {
		return a.Decide(authn.Request{Namespace: namespace, Credential: authn.NewCredential(plaintext)}).Decision
	}
	g.Expect(decide(restarted, shop, "shop's")).To(Equal(authn.Granted))
	g.Expect(decide(restarted, bank, "bank's")).To(Equal(authn.Unavailable))
	fromMemory := authn.NewAuthenticator(running, 0, clock)
	g.Expect(decide(fromMemory, bank, "bank's")).To(Equal(authn.Granted), "a running process continues from memory")
}

// A namespace that the API refuses to list stays refused while the API is unreachable.
func TestInvariant9_AnAuthenticatorWithARefusedNamespaceStaysReadyWhileTheAPIIsUnreachable(t *testing.T) {
	g := NewWithT(t)
	env := testenv.Shared(t)
	shop, bank := env.Namespace(t), env.Namespace(t)
	allowReader(t, env, shop)
	var isAway atomic.Bool
	failures := make(chan struct{}, 1000)
	config := env.User(t, reader)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if !isAway.Load() {
				return next.RoundTrip(request)
			}
			if strings.Contains(request.URL.Path, bank) {
				failures <- struct{}{}
			}
			return nil, syscall.ECONNREFUSED
		})
	})
	authenticator := authn.NewAuthenticator(runKeyrings(t, config, shop, bank), 0, clock)
	eventually(g, authenticator.Ready).Should(Succeed())

	isAway.Store(true)
	for range 2 { // the first failure is recorded when the second one is sent
		<-failures
	}
	g.Expect(authenticator.Ready()).To(Succeed())
}

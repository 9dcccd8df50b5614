// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// The ConfigMap of the authorities that the authenticator's certificate may be signed by, and its copies, as docs/gateways calls them.
const (
	authorities       = "apikey-operator-ca"
	copiedAuthorities = "apikey-authenticator-ca"
)

// tenant is a namespace with a service behind a gateway, and a client with an API key that may read.
type tenant struct {
	*cluster
	namespace string
}

// tenant makes a namespace with all that, and returns when it runs. It is deleted after the test.
func (c *cluster) tenant(t *testing.T) *tenant {
	t.Helper()
	tenant := &tenant{cluster: c, namespace: c.namespace(t)}
	tenant.copyAuthorities(t)
	tenant.configureGateway(t)
	c.apply(t, "tenant", tenant.namespace)
	for _, pod := range []string{"pod/backend", "pod/gateway", "pod/client"} {
		c.await(t, tenant.namespace, pod, "condition=Ready")
	}
	NewWithT(t).Eventually(func() error { // their Services lead to them soon
		_, err := tenant.request("GET", "ask").DoRaw(t.Context())
		return err
	}).Should(Succeed())
	return tenant
}

// configureGateway gives Caddy the configuration that its page shows.
func (n *tenant) configureGateway(t *testing.T) {
	t.Helper()
	caddyfile := docsnippets.Replace(t, docsnippets.CodeBlock(t, "caddy.md", "/etc/caddy/Caddyfile"), map[string]string{
		"/auth/forward/shop":     "/auth/forward/" + n.namespace,
		"frontend.shop.svc:8080": "backend." + n.namespace + ".svc:8080",
	})
	err := n.api.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "caddy"},
		Data:       map[string]string{"Caddyfile": caddyfile},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyAuthorities copies the authorities to where the gateway and the client find them, once they are published.
func (n *tenant) copyAuthorities(t *testing.T) {
	t.Helper()
	published := &corev1.ConfigMap{}
	NewWithT(t).Eventually(func() error {
		return n.api.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: authorities}, published)
	}).Should(Succeed())
	n.copy(t, published)
}

func (n *tenant) copy(t *testing.T, published *corev1.ConfigMap) {
	t.Helper()
	own := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: copiedAuthorities}}
	_, err := controllerutil.CreateOrUpdate(t.Context(), n.api, own, func() error {
		own.Data = published.Data
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// keepCopying copies the authorities again whenever they change, until the test ends.
func (n *tenant) keepCopying(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
		var copied map[string]string
		for ticker := time.NewTicker(100 * time.Millisecond); ; {
			published := &corev1.ConfigMap{}
			err := n.api.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: authorities}, published)
			if err == nil && !equality.Semantic.DeepEqual(published.Data, copied) {
				n.copy(t, published)
				copied = published.Data
			}
			select {
			case <-ctx.Done():
				ticker.Stop()
				return
			case <-ticker.C:
			}
		}
	}()
}

// keys returns the keys of the tenant, as they are.
func (n *tenant) keys(t *testing.T) map[string]v1alpha1.APIKey {
	t.Helper()
	list := &v1alpha1.APIKeyList{}
	if err := n.api.List(t.Context(), list, client.InNamespace(n.namespace)); err != nil {
		t.Fatal(err)
	}
	keys := map[string]v1alpha1.APIKey{}
	for _, key := range list.Items {
		keys[key.Name] = key
	}
	return keys
}

// request is a request to the client's pod, through the API server.
func (n *tenant) request(verb string, path ...string) *rest.Request {
	return n.clients.CoreV1().RESTClient().Verb(verb).
		Namespace(n.namespace).Resource("pods").Name("client:8080").SubResource("proxy").Suffix(path...)
}

// tell has the client do something, and returns what it answers.
func tell(t *testing.T, request *rest.Request) string {
	t.Helper()
	answer, err := request.DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// ask has the client make a request of the service, and returns its status and body.
func (n *tenant) ask(t *testing.T, method, key string) string {
	t.Helper()
	return tell(t, n.request("GET", "ask").Param("method", method).Param("key", key))
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

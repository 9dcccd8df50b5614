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
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// The ConfigMap of the CA bundle, and its copies, with the names in docs/gateways.
const (
	caBundle       = "apikey-operator-ca"
	copiedCABundle = "apikey-authenticator-ca"
)

// tenant is a namespace with a service behind a gateway, and a client with an API key for reading.
type tenant struct {
	*cluster
	namespace string
}

// tenant creates a tenant, and returns when its pods are ready. It is deleted after the test.
func (c *cluster) tenant(t *testing.T) *tenant {
	t.Helper()
	tenant := &tenant{cluster: c, namespace: c.namespace(t)}
	tenant.copyCABundle(t)
	tenant.configureGateway(t)
	c.apply(t, "tenant", tenant.namespace)
	for _, pod := range []string{"pod/backend", "pod/gateway", "pod/client"} {
		c.await(t, tenant.namespace, pod, "condition=Ready")
	}
	NewWithT(t).Eventually(func() error { // until their Services have endpoints
		_, err := tenant.clientRequest("GET", "send").DoRaw(t.Context())
		return err
	}).Should(Succeed())
	return tenant
}

// configureGateway creates the Caddyfile from docs/gateways.
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
	framework.Must(t, err)
}

// copyCABundle waits until the CA bundle is published, and copies it for the gateway and the client.
func (n *tenant) copyCABundle(t *testing.T) {
	t.Helper()
	published := &corev1.ConfigMap{}
	NewWithT(t).Eventually(func() error {
		return n.api.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: caBundle}, published)
	}).Should(Succeed())
	n.copy(t, published)
}

func (n *tenant) copy(t *testing.T, published *corev1.ConfigMap) {
	t.Helper()
	copied := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: copiedCABundle}}
	_, err := controllerutil.CreateOrUpdate(t.Context(), n.api, copied, func() error {
		copied.Data = published.Data
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// keepCopying copies the CA bundle after each change, until the test ends.
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
			err := n.api.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: caBundle}, published)
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

// keys returns the keys of the tenant by name.
func (n *tenant) keys(t *testing.T) map[string]v1alpha1.APIKey {
	t.Helper()
	list := &v1alpha1.APIKeyList{}
	framework.Must(t, n.api.List(t.Context(), list, client.InNamespace(n.namespace)))
	keys := map[string]v1alpha1.APIKey{}
	for _, key := range list.Items {
		keys[key.Name] = key
	}
	return keys
}

// clientRequest returns a request to the pod of the client, through the API server.
func (n *tenant) clientRequest(verb string, path ...string) *rest.Request {
	return n.clients.CoreV1().RESTClient().Verb(verb).
		Namespace(n.namespace).Resource("pods").Name("client:8080").SubResource("proxy").Suffix(path...)
}

// do sends a request, and returns the body of the response.
func do(t *testing.T, request *rest.Request) string {
	t.Helper()
	body, err := request.DoRaw(t.Context())
	framework.Must(t, err)
	return string(body)
}

// send makes the client send a request to the service, and returns the status and the body of the response.
func (n *tenant) send(t *testing.T, method, key string) string {
	t.Helper()
	return do(t, n.clientRequest("GET", "send").Param("method", method).Param("key", key))
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

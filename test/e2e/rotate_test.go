// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/test/framework"
)

// The Secrets of the certificates that the controller issues.
const (
	caSecret            = "apikey-operator-ca"
	authenticatorSecret = "apikey-authenticator-tls"
)

// rotate waits until another CA has signed the serving certificates of the authenticators. It replaces the certificate of the current CA by
// one that is about to expire, because the rotation would otherwise be months away.
func (n *tenant) rotate(t *testing.T) {
	t.Helper()
	before := n.issuer(t)
	// The next CA waits for a twelfth of its lifetime before it signs, so that its certificate reaches all pods.
	lifetime := 5 * time.Minute
	if n.node == nil {
		lifetime = 30 * time.Minute
	}
	n.ageCA(t, lifetime)
	start := time.Now()
	NewWithT(t).Eventually(func(g Gomega) {
		current := n.issuer(t)
		g.Expect(current).NotTo(Equal(before))
		serving := n.secret(t, authenticatorSecret).Data[corev1.TLSCertKey]
		leaf, err := cert.ParseCertsPEM(serving)
		g.Expect(err).NotTo(HaveOccurred())
		for _, pod := range n.pods(t, authenticators) {
			g.Expect(do(t, n.clientRequest("GET", "certificate").Param("address", pod.Status.PodIP+":8443"))).To(Equal(leaf[0].SerialNumber.String()))
		}
	}).WithTimeout(lifetime / 3).Should(Succeed())
	t.Logf("all authenticators serve certificates of another CA after %s", time.Since(start).Round(time.Second))
}

// issuer returns the common name of the CA that signed the serving certificate of the authenticators.
func (c *cluster) issuer(t *testing.T) string {
	t.Helper()
	certificates, err := cert.ParseCertsPEM(c.secret(t, authenticatorSecret).Data[corev1.TLSCertKey])
	framework.Must(t, err)
	return certificates[0].Issuer.CommonName
}

// ageCA replaces the certificate of the CA by one with this lifetime that is two thirds old. It has the same name and key, so that existing
// certificates remain valid.
func (c *cluster) ageCA(t *testing.T, lifetime time.Duration) {
	t.Helper()
	secret := c.secret(t, caSecret)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(secret.Data)), func(name string) bool { return !strings.HasSuffix(name, ".crt") })
	if len(names) != 1 {
		t.Fatalf("got the CA certificates %v, want one", names)
	}
	pair, err := tls.X509KeyPair(secret.Data[names[0]], secret.Data[strings.TrimSuffix(names[0], ".crt")+".key"])
	framework.Must(t, err)
	const backdating = 5 * time.Minute // as in all certificates of the controller
	aged := *pair.Leaf
	aged.NotBefore, aged.NotAfter = time.Now().Add(-lifetime*2/3-backdating), time.Now().Add(lifetime/3)
	der, err := x509.CreateCertificate(rand.Reader, &aged, &aged, aged.PublicKey, pair.PrivateKey)
	framework.Must(t, err)
	secret.Data[names[0]] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	framework.Must(t, c.api.Update(t.Context(), secret))
}

func (c *cluster) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	framework.Must(t, c.api.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: name}, secret))
	return secret
}

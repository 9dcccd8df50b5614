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
)

// The Secrets of the certificates that the controller mints.
const (
	authoritySecret     = "apikey-operator-ca"
	authenticatorSecret = "apikey-authenticator-tls"
)

// rotate waits until another authority has signed what the authenticators serve with. So that this comes now and not in months, it makes
// the present one as old as one that is about to be replaced.
func (n *tenant) rotate(t *testing.T) {
	t.Helper()
	before := n.authority(t)
	// A twelfth of its life is how long the next one waits before it signs: as long as its certificate may take to reach pods.
	lifetime := 5 * time.Minute
	if n.node == nil {
		lifetime = 30 * time.Minute
	}
	n.age(t, lifetime)
	start := time.Now()
	NewWithT(t).Eventually(func(g Gomega) {
		now := n.authority(t)
		g.Expect(now).NotTo(Equal(before))
		serving := n.secret(t, authenticatorSecret).Data[corev1.TLSCertKey]
		leaf, err := cert.ParseCertsPEM(serving)
		g.Expect(err).NotTo(HaveOccurred())
		for _, pod := range n.pods(t, authenticators) {
			g.Expect(tell(t, n.request("GET", "certificate").Param("address", pod.Status.PodIP+":8443"))).To(Equal(leaf[0].SerialNumber.String()))
		}
	}).WithTimeout(lifetime / 3).Should(Succeed())
	t.Logf("all serve with certificates of another authority after %s", time.Since(start).Round(time.Second))
}

// authority returns who signed what the authenticators serve with.
func (c *cluster) authority(t *testing.T) string {
	t.Helper()
	certificates, err := cert.ParseCertsPEM(c.secret(t, authenticatorSecret).Data[corev1.TLSCertKey])
	if err != nil {
		t.Fatal(err)
	}
	return certificates[0].Issuer.CommonName
}

// age makes the authority one of this lifetime, two thirds of which are over. It has the same name and key, so all that it signed is as
// good as before.
func (c *cluster) age(t *testing.T, lifetime time.Duration) {
	t.Helper()
	secret := c.secret(t, authoritySecret)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(secret.Data)), func(name string) bool { return !strings.HasSuffix(name, ".crt") })
	if len(names) != 1 {
		t.Fatalf("there is more than one authority already: %v", names)
	}
	pair, err := tls.X509KeyPair(secret.Data[names[0]], secret.Data[strings.TrimSuffix(names[0], ".crt")+".key"])
	if err != nil {
		t.Fatal(err)
	}
	const backdating = 5 * time.Minute // of every certificate that the controller makes
	aged := *pair.Leaf
	aged.NotBefore, aged.NotAfter = time.Now().Add(-lifetime*2/3-backdating), time.Now().Add(lifetime/3)
	der, err := x509.CreateCertificate(rand.Reader, &aged, &aged, aged.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	secret.Data[names[0]] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := c.api.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := c.api.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: name}, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

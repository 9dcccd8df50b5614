// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestRotate_IssuesTheCertificateOfAConsole(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()
	certificate, bundle := f.consoleObjects(f.consoles[0])
	if bundle.Data["ca.crt"] != f.bundle() || string(certificate.Data["ca.crt"]) != f.bundle() || certificate.Type != corev1.SecretTypeTLS {
		t.Errorf("the bundles are\n%s\nand\n%s\nwant\n%s", bundle.Data["ca.crt"], certificate.Data["ca.crt"], f.bundle())
	}
	f.assertVerified(f.consoles[0]+"/"+ConsoleSecret, string(certificate.Data["tls.crt"]), bundle.Data["ca.crt"])
	certificates, err := cert.ParseCertsPEM(certificate.Data["tls.crt"])
	framework.Must(t, err)
	framework.Must(t, certificates[0].VerifyHostname("localhost"))
}

// The first authority may not sign for a console that is added later. The second one signs for it at once, and for the others only after
// all clients can have read the CA bundle. The fixture asserts that.
func TestRotate_AddedConsolesGetACertificateAtOnce(t *testing.T) {
	f := newFixture(t, lifetime)
	consoles := []string{f.consoles[0], testenv.Shared(t).Namespace(t)}
	f.consoles = nil
	f.rotate()
	authenticator := f.secret(AuthenticatorSecret).ResourceVersion

	for i, namespace := range consoles {
		earlier := f.versions()
		f.now = f.now.Add(lifetime / 240)
		f.consoles = consoles[:i+1]
		f.rotate()
		certificate, bundle := f.consoleObjects(namespace)
		f.assertVerified(namespace+"/"+ConsoleSecret, string(certificate.Data["tls.crt"]), bundle.Data["ca.crt"])
		for _, before := range consoles[:i] {
			if now, _ := f.consoleObjects(before); signerOf(f, now) != 1 {
				t.Errorf("after console %d was added, authority %d signs for an earlier one", i+1, signerOf(f, now))
			}
		}
		if i == 0 && (f.secret(AuthenticatorSecret).ResourceVersion == authenticator || f.maxPublished != 2) {
			t.Errorf("the authenticator's Secret lacks the new authority; %d authorities were published", f.maxPublished)
		}
		f.rotate()
		if got := f.versions(); got["bundle"] == earlier["bundle"] {
			t.Error("the CA bundle has not changed")
		}
	}
	if signer := signerOf(f, f.secret(AuthenticatorSecret)); signer != 0 {
		t.Errorf("authority %d signs for the authenticator, want 0", signer)
	}
	for range 3 * 240 / 12 {
		f.now = f.now.Add(lifetime / 240)
		f.rotate()
	}
	if signer := signerOf(f, f.secret(AuthenticatorSecret)); signer != len(consoles) {
		t.Errorf("authority %d signs for the authenticator in the end, want %d", signer, len(consoles))
	}
}

// signerOf returns the index of the authority that signed a certificate. The authorities are sorted, the oldest first.
func signerOf(f *fixture, secret *corev1.Secret) int {
	f.Helper()
	certificates, err := cert.ParseCertsPEM(secret.Data["tls.crt"])
	framework.Must(f, err)
	authorities, err := parseAuthorities(f.secret(AuthoritySecret))
	framework.Must(f, err)
	for i, a := range authorities {
		if certificates[0].CheckSignatureFrom(a.certificate) == nil {
			return i
		}
	}
	f.Fatal("no authority signed the certificate")
	return -1
}

func TestRotate_AConsoleThatCannotBeWrittenStopsNoOther(t *testing.T) {
	f := newFixture(t, lifetime)
	good := f.consoles[0]
	f.consoles = []string{"missing", good}
	err := f.rotator(nil).Rotate(t.Context())
	const want = `write ConfigMap "apikey-operator-ca" of the namespace missing: namespaces "missing" not found
write Secret "apikey-console-tls" of the namespace missing: namespaces "missing" not found`
	if err == nil || err.Error() != want {
		t.Errorf("got the error %v, want %s", err, want)
	}
	f.consoleObjects(good)
	f.secret(AuthenticatorSecret)
	if recordedExpiration(t, "console/missing") != 0 || recordedExpiration(t, "console/"+good) == 0 {
		t.Error("the metric has a certificate that was not written, or lacks one that was")
	}
}

// An alert fires if a certificate is not renewed, although the Rotator issues one that it cannot write.
func TestRotate_RecordsTheExpiryOfTheCertificateThatIsServed(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()
	name := "console/" + f.consoles[0]
	before := recordedExpiration(t, name)
	f.now = f.now.Add(lifetime / 12)
	refused := interceptor.NewClient(f.client, interceptor.Funcs{
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return errors.New("refused")
		},
	})
	rotator := f.rotator(nil)
	rotator.Client = refused
	if err := rotator.Rotate(t.Context()); err == nil {
		t.Error("a refused write is not an error")
	}
	if now := recordedExpiration(t, name); now != before {
		t.Errorf("the metric is %v, want %v as before", now, before)
	}
}

// recordedExpiration returns the metric of a certificate, or 0 if there is none.
func recordedExpiration(t *testing.T, name string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	RegisterMetrics(registry)
	families, err := registry.Gather()
	framework.Must(t, err)
	for _, metric := range families[0].GetMetric() {
		if metric.GetLabel()[0].GetValue() == name {
			return metric.GetGauge().GetValue()
		}
	}
	return 0
}

// A user may give the one-time Secret of a key any name that is free, and the controller labels it as its own.
func TestRotate_LeavesTheSecretOfATokenUnchanged(t *testing.T) {
	f := newFixture(t, lifetime)
	handedOver := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.consoles[0], Name: ConsoleSecret, Labels: map[string]string{managedByLabel: managedBy}},
		Type:       v1alpha1.SecretTypeToken,
		Data:       map[string][]byte{"token": []byte("theirs")},
	}
	framework.Must(f, f.client.Create(t.Context(), handedOver))
	f.rotate()
	certificate, _ := f.consoleObjects(f.consoles[0])
	if certificate.ResourceVersion != handedOver.ResourceVersion {
		t.Errorf("the Secret was written: %+v", certificate)
	}
	f.secret(AuthenticatorSecret)
	f.assertOneWarning(`NotManaged Secret "apikey-console-tls" holds the token of an APIKey instead of a certificate: delete that APIKey, ` +
		"and create one with another spec.secret.name")
}

func TestRotate_AConsoleInTheNamespaceOfTheControllerSharesItsBundle(t *testing.T) {
	f := newFixture(t, lifetime)
	f.consoles = []string{f.name}
	f.rotate()
	certificate, bundle := f.consoleObjects(f.name)
	f.assertVerified(f.name+"/"+ConsoleSecret, string(certificate.Data["tls.crt"]), bundle.Data["ca.crt"])
}

func TestRotate_LeavesObjectsOfOtherOwnersInTheNamespaceOfAConsole(t *testing.T) {
	f := newFixture(t, lifetime)
	foreign := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.consoles[0], Name: BundleConfigMap}, Data: map[string]string{"ca.crt": "theirs"},
	}
	framework.Must(f, f.client.Create(t.Context(), foreign))
	f.rotate()
	certificate, bundle := f.consoleObjects(f.consoles[0])
	if bundle.Data["ca.crt"] != "theirs" || string(certificate.Data["ca.crt"]) != f.bundle() {
		t.Errorf("the bundles are\n%s\nand\n%s", bundle.Data["ca.crt"], certificate.Data["ca.crt"])
	}
	f.assertOneWarning(`NotManaged ConfigMap "apikey-operator-ca"` + notManaged)
}

func TestRotate_WithoutAWebhookReadsNoWebhookConfiguration(t *testing.T) {
	f := newFixture(t, lifetime)
	rotator := f.rotator(nil)
	rotator.WebhookConfiguration = ""
	framework.Must(t, rotator.Rotate(t.Context()))
	secret := &corev1.Secret{}
	err := f.client.Get(t.Context(), client.ObjectKey{Namespace: f.name, Name: WebhookSecret}, secret)
	if client.IgnoreNotFound(err) != nil || err == nil || f.injectedBundles != nil {
		t.Errorf("a certificate exists (%v), and the configuration was written: %t", errors.Unwrap(err), f.injectedBundles != nil)
	}
	f.secret(AuthenticatorSecret)
}

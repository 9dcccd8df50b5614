// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fixture is a namespace with its own clock, and the history of all that clients could read there.
type fixture struct {
	*testing.T
	client   client.WithWatch
	name     string   // of the namespace, and of the ValidatingWebhookConfiguration
	consoles []string // the namespaces with a console
	lifetime time.Duration
	now      time.Time
	clockErr error // the result of CheckClock
	events   *events.FakeRecorder

	bundles         history            // of the ConfigMap
	consoleBundles  map[string]history // of the ConfigMaps, by namespace
	injectedBundles history            // of the ValidatingWebhookConfiguration
	served          map[string]history // the serving certificates, by NAMESPACE/SECRET
	signers         map[string]bool    // the authorities that have signed
	maxPublished    int                // the highest number of authorities in the ConfigMap
}

// history holds the values of a variable.
type history []struct {
	value string
	since time.Time
}

// since returns the distinct values from a time on.
func (h history) since(then time.Time) (values []string) {
	for i, entry := range h {
		ended := i+1 < len(h) && !h[i+1].since.After(then)
		if !ended && !slices.Contains(values, entry.value) {
			values = append(values, entry.value)
		}
	}
	return values
}

func newFixture(t *testing.T, lifetime time.Duration) *fixture {
	t.Helper()
	t.Parallel()
	env := testenv.Shared(t)
	config := rest.CopyConfig(env.Config)
	config.QPS = -1 // no limit
	c, err := client.NewWithWatch(config, client.Options{Scheme: env.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{
		T: t, client: c, name: env.Namespace(t), consoles: []string{env.Namespace(t)}, lifetime: lifetime, now: start,
		events: events.NewFakeRecorder(100), consoleBundles: map[string]history{}, served: map[string]history{}, signers: map[string]bool{},
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: f.name},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:                    WebhookConfiguration,
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: new("https://127.0.0.1:1/")},
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}
	framework.Must(f, f.client.Create(t.Context(), configuration))
	t.Cleanup(func() { framework.Must(f, f.client.Delete(context.Background(), configuration)) })
	return f
}

// rotator returns a new Rotator. Before each API call it calls before, unless that is nil; an error prevents the API call.
func (f *fixture) rotator(before func(call int) error) *Rotator {
	call := 0
	around := func(do func() error) error {
		if call++; before != nil {
			if err := before(call); err != nil {
				return err
			}
		}
		return do()
	}
	intercepted := interceptor.NewClient(f.client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			return around(func() error { return c.Get(ctx, key, object, options...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			return around(func() error { return f.record(object, c.Create(ctx, object, options...)) })
		},
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
			return around(func() error { return f.record(object, c.Update(ctx, object, options...)) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return around(func() error { return f.record(object, c.Patch(ctx, object, patch, options...)) })
		},
	})
	return &Rotator{
		Client: intercepted, Events: f.events, Log: slog.New(slog.DiscardHandler), Namespace: f.name, WebhookConfiguration: f.name,
		ConsoleNamespaces: f.consoles, Lifetime: f.lifetime, Now: func() time.Time { return f.now }, CheckClock: func(context.Context) error { return f.clockErr },
		warned: map[string]bool{},
	}
}

// record adds a written object to the history, and asserts that all clients can still verify all servers.
func (f *fixture) record(object client.Object, err error) error {
	if err != nil {
		return err
	}
	add := func(h history, value []byte) history {
		return append(h, history{{string(value), f.now}}...)
	}
	switch object := object.(type) {
	case *corev1.ConfigMap:
		if object.Namespace != f.name {
			f.consoleBundles[object.Namespace] = add(f.consoleBundles[object.Namespace], []byte(object.Data["ca.crt"]))
			break
		}
		f.bundles = add(f.bundles, []byte(object.Data["ca.crt"]))
		certificates, err := cert.ParseCertsPEM([]byte(object.Data["ca.crt"]))
		framework.Must(f, err)
		f.maxPublished = max(f.maxPublished, len(certificates))
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		f.injectedBundles = add(f.injectedBundles, object.Webhooks[0].ClientConfig.CABundle)
	case *corev1.Secret:
		if object.Type == corev1.SecretTypeTLS {
			name := client.ObjectKeyFromObject(object).String()
			f.served[name] = add(f.served[name], object.Data["tls.crt"])
		}
	}
	f.assertCovered()
	return nil
}

// assertCovered asserts that each CA bundle of the last twelfth of the lifetime covers each serving certificate, those included that a slow
// pod may still serve.
func (f *fixture) assertCovered() {
	f.Helper()
	slowestPod := f.now.Add(-f.lifetime / 80)
	slowestClient := f.now.Add(-f.lifetime / 12)
	for secret, served := range f.served {
		bundles := f.bundles.since(slowestClient)
		namespace, name, _ := strings.Cut(secret, "/")
		if name == WebhookSecret {
			bundles = append(bundles, f.injectedBundles.since(f.now)...) // the API server watches them
		}
		if name == ConsoleSecret {
			bundles = f.consoleBundles[namespace].since(slowestClient) // its clients read this one
		}
		for _, certificate := range served.since(slowestPod) {
			for _, bundle := range bundles {
				f.assertVerified(secret, certificate, bundle)
			}
		}
	}
}

func (f *fixture) assertVerified(secret, certificatePEM, bundle string) {
	f.Helper()
	certificates, err := cert.ParseCertsPEM([]byte(certificatePEM))
	framework.Must(f, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle))
	namespace, secretName, _ := strings.Cut(secret, "/")
	service := map[string]string{
		AuthenticatorSecret: "apikey-authenticator", WebhookSecret: "apikey-controller-webhook", ConsoleSecret: "apikey-console",
	}[secretName]
	name := service + "." + namespace + ".svc"
	chains, err := certificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: f.now})
	if err != nil {
		f.Fatalf("%s after the start, a client cannot verify the certificate of %s: %v", f.now.Sub(start), secret, err)
	}
	f.signers[chains[0][1].Subject.CommonName] = true
}

// rotate rotates once with a new Rotator.
func (f *fixture) rotate() {
	f.Helper()
	framework.Must(f, f.rotator(nil).Rotate(f.Context()))
}

func (f *fixture) get(name string, object client.Object) {
	f.Helper()
	framework.Must(f, f.client.Get(f.Context(), client.ObjectKey{Namespace: f.name, Name: name}, object))
}

func (f *fixture) secret(name string) *corev1.Secret {
	f.Helper()
	secret := &corev1.Secret{}
	f.get(name, secret)
	return secret
}

func (f *fixture) bundle() string {
	f.Helper()
	configMap := &corev1.ConfigMap{}
	f.get(BundleConfigMap, configMap)
	return configMap.Data["ca.crt"]
}

// consoleObjects returns the objects in the namespace of a console.
func (f *fixture) consoleObjects(namespace string) (certificate *corev1.Secret, bundle *corev1.ConfigMap) {
	f.Helper()
	certificate, bundle = &corev1.Secret{}, &corev1.ConfigMap{}
	framework.Must(f, f.client.Get(f.Context(), client.ObjectKey{Namespace: namespace, Name: ConsoleSecret}, certificate))
	framework.Must(f, f.client.Get(f.Context(), client.ObjectKey{Namespace: namespace, Name: BundleConfigMap}, bundle))
	return certificate, bundle
}

func (f *fixture) delete(object client.Object, name string) {
	f.Helper()
	f.deleteIn(f.name, object, name)
}

func (f *fixture) deleteIn(namespace string, object client.Object, name string) {
	f.Helper()
	object.SetNamespace(namespace)
	object.SetName(name)
	framework.Must(f, client.IgnoreNotFound(f.client.Delete(f.Context(), object)))
}

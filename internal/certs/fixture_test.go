// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	testenv.Main(m)
}

// world is a namespace of the API with a clock of its own, and all that was ever readable there.
type fixture struct {
	*testing.T
	client   client.WithWatch
	name     string // of the namespace, and of the ValidatingWebhookConfiguration
	lifetime time.Duration
	now      time.Time
	clockErr error // why the clock is not trusted
	events   *events.FakeRecorder

	bundles, trusts        history            // of the ConfigMap and the ValidatingWebhookConfiguration
	served                 map[string]history // by Secret
	authoritiesThatSigned  map[string]bool
	largestNumberPublished int
}

// history is what a value was, and from when on.
type history []struct {
	value string
	since time.Time
}

// within returns all different values that it had from then on.
func (h history) within(then time.Time) (values []string) {
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
		T: t, client: c, name: env.Namespace(t), lifetime: lifetime, now: start, events: events.NewFakeRecorder(100),
		served: map[string]history{}, authoritiesThatSigned: map[string]bool{},
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

// keeper returns a Rotator that has just started. Before each of its calls of the API it calls before, if that is not nil; an error keeps
// the call from being made.
func (f *fixture) keeper(before func(call int) error) *Rotator {
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
		Client: intercepted, Events: f.events, Namespace: f.name, WebhookConfiguration: f.name, Lifetime: f.lifetime,
		Now: func() time.Time { return f.now }, CheckClock: func(context.Context) error { return f.clockErr }, told: map[string]bool{},
	}
}

// record notes what was written, and asserts that nobody is cut off by it.
func (f *fixture) record(object client.Object, err error) error {
	if err != nil {
		return err
	}
	note := func(h history, value []byte) history {
		return append(h, history{{string(value), f.now}}...)
	}
	switch object := object.(type) {
	case *corev1.ConfigMap:
		f.bundles = note(f.bundles, []byte(object.Data["ca.crt"]))
		certificates, err := cert.ParseCertsPEM([]byte(object.Data["ca.crt"]))
		framework.Must(f, err)
		f.largestNumberPublished = max(f.largestNumberPublished, len(certificates))
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		f.trusts = note(f.trusts, object.Webhooks[0].ClientConfig.CABundle)
	case *corev1.Secret:
		if object.Type == corev1.SecretTypeTLS {
			f.served[object.Name] = note(f.served[object.Name], object.Data["tls.crt"])
		}
	}
	f.assertNoGap()
	return nil
}

// assertNoGap asserts that everybody who verifies can verify everybody who serves: with the published bundle or any other that was
// published within a twelfth of the lifetime, what is served, or was until a while ago by those who read a certificate late.
func (f *fixture) assertNoGap() {
	f.Helper()
	late := f.now.Add(-f.lifetime / 80)
	old := f.now.Add(-f.lifetime / 12)
	for secret, served := range f.served {
		bundles := f.bundles.within(old)
		if secret == WebhookSecret {
			bundles = append(bundles, f.trusts.within(f.now)...) // the API server hears of it at once
		}
		for _, certificate := range served.within(late) {
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
	service := map[string]string{AuthenticatorSecret: "apikey-authenticator", WebhookSecret: "apikey-controller-webhook"}[secret]
	name := service + "." + f.name + ".svc"
	chains, err := certificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: f.now})
	if err != nil {
		f.Fatalf("%s after the start, %s is not good to one who verifies: %v", f.now.Sub(start), secret, err)
	}
	f.authoritiesThatSigned[chains[0][1].Subject.CommonName] = true
}

// keep has a Rotator that has just started look once.
func (f *fixture) keep() {
	f.Helper()
	framework.Must(f, f.keeper(nil).Rotate(f.Context()))
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

func (f *fixture) delete(object client.Object, name string) {
	f.Helper()
	object.SetNamespace(f.name)
	object.SetName(name)
	framework.Must(f, client.IgnoreNotFound(f.client.Delete(f.Context(), object)))
}

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

	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	testenv.Main(m)
}

// world is a namespace of the API with a clock of its own, and all that was ever readable there.
type world struct {
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

func newWorld(t *testing.T, lifetime time.Duration) *world {
	t.Helper()
	t.Parallel()
	env := testenv.Shared(t)
	config := rest.CopyConfig(env.Config)
	config.QPS = -1 // no limit
	c, err := client.NewWithWatch(config, client.Options{Scheme: env.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		T: t, client: c, name: env.Namespace(t), lifetime: lifetime, now: start, events: events.NewFakeRecorder(100),
		served: map[string]history{}, authoritiesThatSigned: map[string]bool{},
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: w.name},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:                    WebhookConfiguration,
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: new("https://127.0.0.1:1/")},
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}
	w.must(w.client.Create(t.Context(), configuration))
	t.Cleanup(func() { w.must(w.client.Delete(context.Background(), configuration)) })
	return w
}

// keeper returns a Rotator that has just started. Before each of its calls of the API it calls before, if that is not nil; an error keeps
// the call from being made.
func (w *world) keeper(before func(call int) error) *Rotator {
	call := 0
	around := func(do func() error) error {
		if call++; before != nil {
			if err := before(call); err != nil {
				return err
			}
		}
		return do()
	}
	intercepted := interceptor.NewClient(w.client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			return around(func() error { return c.Get(ctx, key, object, options...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			return around(func() error { return w.record(object, c.Create(ctx, object, options...)) })
		},
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
			return around(func() error { return w.record(object, c.Update(ctx, object, options...)) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return around(func() error { return w.record(object, c.Patch(ctx, object, patch, options...)) })
		},
	})
	return &Rotator{
		Client: intercepted, Events: w.events, Namespace: w.name, WebhookConfiguration: w.name, Lifetime: w.lifetime,
		Now: func() time.Time { return w.now }, CheckClock: func(context.Context) error { return w.clockErr }, told: map[string]bool{},
	}
}

// record notes what was written, and asserts that nobody is cut off by it.
func (w *world) record(object client.Object, err error) error {
	if err != nil {
		return err
	}
	note := func(h history, value []byte) history {
		return append(h, history{{string(value), w.now}}...)
	}
	switch object := object.(type) {
	case *corev1.ConfigMap:
		w.bundles = note(w.bundles, []byte(object.Data["ca.crt"]))
		certificates, err := cert.ParseCertsPEM([]byte(object.Data["ca.crt"]))
		w.must(err)
		w.largestNumberPublished = max(w.largestNumberPublished, len(certificates))
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		w.trusts = note(w.trusts, object.Webhooks[0].ClientConfig.CABundle)
	case *corev1.Secret:
		if object.Type == corev1.SecretTypeTLS {
			w.served[object.Name] = note(w.served[object.Name], object.Data["tls.crt"])
		}
	}
	w.assertNoGap()
	return nil
}

// assertNoGap asserts that everybody who verifies can verify everybody who serves: with the published bundle or any other that was
// published within a twelfth of the lifetime, what is served, or was until a while ago by those who read a certificate late.
func (w *world) assertNoGap() {
	w.Helper()
	late := w.now.Add(-w.lifetime / 80)
	old := w.now.Add(-w.lifetime / 12)
	for secret, served := range w.served {
		bundles := w.bundles.within(old)
		if secret == WebhookSecret {
			bundles = append(bundles, w.trusts.within(w.now)...) // the API server hears of it at once
		}
		for _, certificate := range served.within(late) {
			for _, bundle := range bundles {
				w.assertVerified(secret, certificate, bundle)
			}
		}
	}
}

func (w *world) assertVerified(secret, certificatePEM, bundle string) {
	w.Helper()
	certificates, err := cert.ParseCertsPEM([]byte(certificatePEM))
	w.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle))
	service := map[string]string{AuthenticatorSecret: "apikey-authenticator", WebhookSecret: "apikey-controller-webhook"}[secret]
	name := service + "." + w.name + ".svc"
	chains, err := certificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: w.now})
	if err != nil {
		w.Fatalf("%s after the start, %s is not good to one who verifies: %v", w.now.Sub(start), secret, err)
	}
	w.authoritiesThatSigned[chains[0][1].Subject.CommonName] = true
}

// keep has a Rotator that has just started look once.
func (w *world) keep() {
	w.Helper()
	w.must(w.keeper(nil).Rotate(w.Context()))
}

func (w *world) get(name string, object client.Object) {
	w.Helper()
	w.must(w.client.Get(w.Context(), client.ObjectKey{Namespace: w.name, Name: name}, object))
}

func (w *world) secret(name string) *corev1.Secret {
	w.Helper()
	secret := &corev1.Secret{}
	w.get(name, secret)
	return secret
}

func (w *world) bundle() string {
	w.Helper()
	configMap := &corev1.ConfigMap{}
	w.get(BundleConfigMap, configMap)
	return configMap.Data["ca.crt"]
}

func (w *world) delete(object client.Object, name string) {
	w.Helper()
	object.SetNamespace(w.name)
	object.SetName(name)
	w.must(client.IgnoreNotFound(w.client.Delete(w.Context(), object)))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

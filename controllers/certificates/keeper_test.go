// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const lifetime = 240 * time.Hour

func TestEverythingIsThereAfterOneLook(t *testing.T) {
	w := newWorld(t, lifetime)
	w.keep()

	authorities, err := parseAuthorities(w.secret(AuthoritySecret))
	w.must(err)
	if len(authorities) != 1 || w.bundle() != string(bundleOf(authorities)) {
		t.Errorf("%d authorities; the bundle is\n%s", len(authorities), w.bundle())
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	w.must(w.client.Get(t.Context(), client.ObjectKey{Name: w.name}, configuration))
	if got := string(configuration.Webhooks[0].ClientConfig.CABundle); got != w.bundle() {
		t.Errorf("the API server trusts\n%s", got)
	}
	for _, name := range []string{AuthenticatorSecret, WebhookSecret} {
		secret := w.secret(name)
		if secret.Type != corev1.SecretTypeTLS || string(secret.Data["ca.crt"]) != w.bundle() {
			t.Errorf("%s is of type %s, with the authorities\n%s", name, secret.Type, secret.Data["ca.crt"])
		}
		w.assertVerified(name, string(secret.Data["tls.crt"]), w.bundle())
	}
}

func TestWhatIsGoodIsNotWrittenAgain(t *testing.T) {
	w := newWorld(t, lifetime)
	w.keep()
	before := w.versions()
	w.now = w.now.Add(lifetime/18 - time.Second) // two thirds of a serving certificate's time
	w.keep()
	if diff := cmp.Diff(before, w.versions()); diff != "" {
		t.Errorf("written:\n%s", diff)
	}
}

// versions returns the resource versions of all that is written.
func (w *world) versions() map[string]string {
	w.Helper()
	configMap, configuration := &corev1.ConfigMap{}, &admissionregistrationv1.ValidatingWebhookConfiguration{}
	w.get(BundleConfigMap, configMap)
	w.must(w.client.Get(w.Context(), client.ObjectKey{Name: w.name}, configuration))
	versions := map[string]string{"bundle": configMap.ResourceVersion, "webhooks": configuration.ResourceVersion}
	for _, name := range []string{AuthoritySecret, AuthenticatorSecret, WebhookSecret} {
		versions[name] = w.secret(name).ResourceVersion
	}
	return versions
}

// While one authority follows the other, the process is stopped between any two calls, two processes work at once, and what they write gets deleted. World asserts at each write that nobody is cut off, and this test at each step.
func TestNobodyEverMeetsACertificateThatTheirBundleDoesNotCover(t *testing.T) {
	const (
		steps      = 180
		stepsOf    = 120 // a lifetime
		callsOf    = 11
		unluckyFor = 1 // steps without a look to the end, at most
	)
	w := newWorld(t, lifetime)
	random := rand.New(rand.NewPCG(0, 0)) //nolint:gosec // the same in every run
	w.keep()
	for step, unlucky := 0, 0; step < steps; step++ {
		w.now = w.now.Add(lifetime / stepsOf)
		switch random.IntN(20) {
		case 0:
			w.delete(&corev1.ConfigMap{}, BundleConfigMap)
		case 1:
			w.delete(&corev1.Secret{}, AuthenticatorSecret)
		case 2:
			w.delete(&corev1.Secret{}, WebhookSecret)
		case 3, 4, 5:
			w.keepBeside(1 + random.IntN(callsOf))
		}
		if unlucky < unluckyFor && random.IntN(2) == 0 {
			unlucky++
			w.keepUntil(1 + random.IntN(callsOf))
		} else {
			unlucky = 0
			w.keep()
		}
		w.assertNoGap()
	}
	if len(w.authoritiesThatSigned) < 3 || w.largestNumberPublished < 2 {
		t.Errorf("%d authorities signed, at most %d were published at once", len(w.authoritiesThatSigned), w.largestNumberPublished)
	}
}

var errStopped = errors.New("the process was stopped")

// keepUntil has a Keeper look that is stopped before this call.
func (w *world) keepUntil(last int) {
	w.Helper()
	err := w.keeper(func(call int) error {
		if call >= last {
			return errStopped
		}
		return nil
	}).Keep(w.Context())
	if err != nil && !errors.Is(err, errStopped) {
		w.Fatal(err)
	}
}

// keepBeside has a Keeper look, and another one, from beginning to end, before this call of the first.
func (w *world) keepBeside(at int) {
	w.Helper()
	err := w.keeper(func(call int) error {
		if call == at {
			w.keep()
		}
		return nil
	}).Keep(w.Context())
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		w.Fatal(err)
	}
}

func TestTwoLeadersAtTheStartAgreeOnOneAuthority(t *testing.T) {
	for at := 1; at <= 10; at++ {
		t.Run(fmt.Sprintf("before call %d", at), func(t *testing.T) {
			w := newWorld(t, lifetime)
			w.keepBeside(at)
			w.keep()
			w.assertNoGap()
			if w.largestNumberPublished != 1 || len(w.authoritiesThatSigned) != 1 {
				t.Errorf("%d authorities signed, at most %d were published at once", len(w.authoritiesThatSigned), w.largestNumberPublished)
			}
		})
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	lifetime = 240 * time.Hour

	// callsOf is how many calls of the API a look makes at most.
	callsOf = 11
)

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

// While one authority follows the other, the process is stopped between any two calls, two processes work at once, and what they write
// gets deleted. World asserts at each write that nobody is cut off, and this test at each step.
func TestNobodyEverMeetsACertificateThatTheirBundleDoesNotCover(t *testing.T) {
	const (
		steps      = 180
		stepsOf    = 120 // a lifetime
		unluckyFor = 1   // steps without a look to the end, at most
	)
	w := newWorld(t, lifetime)
	random := rand.New(rand.NewPCG(0, 0)) // the same in every run
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

// keepUntil has a Rotator look that is stopped before this call.
func (w *world) keepUntil(last int) {
	w.Helper()
	err := w.keeper(func(call int) error {
		if call >= last {
			return errStopped
		}
		return nil
	}).Rotate(w.Context())
	if err != nil && !errors.Is(err, errStopped) {
		w.Fatal(err)
	}
}

// keepBeside has a Rotator look, and another one, from beginning to end, before this call of the first.
func (w *world) keepBeside(at int) {
	w.Helper()
	w.mustOrLose(w.keeper(func(call int) error {
		if call == at {
			w.keep()
		}
		return nil
	}).Rotate(w.Context()))
}

// mustOrLose allows that somebody else was faster.
func (w *world) mustOrLose(err error) {
	w.Helper()
	if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		w.must(err)
	}
}

// eachCall runs a test for each call of a look at which something can happen.
func eachCall(t *testing.T, test func(w *world, call int)) {
	t.Helper()
	for call := 1; call <= callsOf; call++ {
		t.Run(fmt.Sprintf("before call %d", call), func(t *testing.T) { test(newWorld(t, lifetime), call) })
	}
}

func TestTwoLeadersAtTheStartAgreeOnOneAuthority(t *testing.T) {
	eachCall(t, func(w *world, call int) {
		w.keepBeside(call)
		w.keep()
		w.assertNoGap()
		if w.largestNumberPublished != 1 || len(w.authoritiesThatSigned) != 1 {
			w.Errorf("%d authorities signed, at most %d were published at once", len(w.authoritiesThatSigned), w.largestNumberPublished)
		}
	})
}

// The leader that goes has not seen yet that a successor is due; the one that comes has.
func TestALeaderThatIsSlowTakesNoAuthorityOutOfTheBundle(t *testing.T) {
	eachCall(t, func(w *world, call int) {
		w.keep()
		due := start.Add(lifetime * 2 / 3)
		w.leap(due.Add(-time.Second))
		configMap := &corev1.ConfigMap{}
		w.get(BundleConfigMap, configMap)
		configMap.Data["note"] = "of somebody" // so that there is something to write
		w.must(w.client.Update(w.Context(), configMap))
		slow := w.keeper(func(at int) error {
			if at == call {
				w.now = due
				w.keep()
				w.now = due.Add(time.Second)
			}
			return nil
		})
		slow.Now = func() time.Time { return due.Add(-time.Second) }
		w.mustOrLose(slow.Rotate(w.Context()))
		w.now = due.Add(2 * time.Second)
		w.keep()
		w.leap(due.Add(lifetime / 12))
		w.keep()
		w.expectSuccessorAfter(due.Add(lifetime/12 + 2*time.Second))
	})
}

func TestASuccessorThatWasMintedWhenTheProcessStoppedWaitsAllTheSame(t *testing.T) {
	eachCall(t, func(w *world, call int) {
		w.keep()
		w.leap(w.now.Add(lifetime * 2 / 3))
		w.keepUntil(call)
		w.leap(w.now.Add(lifetime / 12))
		w.keep()
		w.expectSuccessorAfter(w.now.Add(lifetime / 12))
	})
}

// After months without a controller there is nobody left who could sign meanwhile.
func TestTheOnlyAuthorityThatIsLeftSignsAtOnce(t *testing.T) {
	eachCall(t, func(w *world, call int) {
		w.keep()
		w.leap(start.Add(lifetime * 2 / 3))
		w.keepUntil(call)
		w.leap(start.Add(lifetime))
		w.bundles = nil // whoever has an old one is cut off by the end of what is in it
		w.keep()
		w.assertVerified(AuthenticatorSecret, string(w.secret(AuthenticatorSecret).Data["tls.crt"]), w.bundle())
	})
}

// A controller comes back shortly before the authority ends. From when on its successor is published, nobody who has that bundle meets
// what has ended, however late a pod reads.
func TestASuccessorSignsWhilePodsCanStillReadWhatItSigned(t *testing.T) {
	w := newWorld(t, lifetime)
	w.keep()
	w.leap(start.Add(lifetime * 11 / 12))
	w.keep()
	w.bundles = w.bundles[len(w.bundles)-1:]
	for range 24 { // hours, of which the authority has 20 left
		w.now = w.now.Add(time.Hour)
		w.keep()
		w.assertNoGap()
	}
	if len(w.authoritiesThatSigned) != 2 {
		t.Errorf("%d authorities signed", len(w.authoritiesThatSigned))
	}
}

// leap goes to another time. Nobody has worked until then, and nothing that has expired meanwhile is served any more.
func (w *world) leap(to time.Time) {
	w.Helper()
	w.now = to
	clear(w.served)
	for _, name := range []string{AuthenticatorSecret, WebhookSecret} {
		w.delete(&corev1.Secret{}, name)
	}
}

// expectSuccessorAfter expects a second authority to sign from then on at the latest.
func (w *world) expectSuccessorAfter(then time.Time) {
	w.Helper()
	w.leap(then)
	w.keep()
	authorities, err := parseAuthorities(w.secret(AuthoritySecret))
	w.must(err)
	last := authorities[len(authorities)-1]
	if reason := w.whyReplace(AuthenticatorSecret, last); len(authorities) != 2 || reason != "" {
		w.Errorf("there are %d authorities; the certificate is not of the last one: %s", len(authorities), reason)
	}
}

func (w *world) whyReplace(name string, signer authority) string {
	w.Helper()
	secret := w.secret(name)
	return whyIssue(secret.Data["tls.crt"], secret.Data["tls.key"], signer, w.keeper(nil).namesOf("apikey-authenticator"), w.now)
}

func TestWhatIsDeletedIsMadeAgain(t *testing.T) {
	w := newWorld(t, lifetime)
	w.keep()
	bundle, authenticator := w.bundle(), w.secret(AuthenticatorSecret).Data["tls.crt"]

	w.delete(&corev1.ConfigMap{}, BundleConfigMap)
	w.delete(&corev1.Secret{}, AuthenticatorSecret)
	w.keep()
	if w.bundle() != bundle {
		t.Errorf("the bundle is now\n%s", w.bundle())
	}
	if bytes.Equal(w.secret(AuthenticatorSecret).Data["tls.crt"], authenticator) {
		t.Error("the certificate is the old one")
	}

	clear(w.served) // whom these cut off is cut off: that is for a key that has leaked
	w.bundles, w.trusts = nil, nil
	w.delete(&corev1.Secret{}, AuthoritySecret)
	w.keep()
	if w.bundle() == bundle || strings.Count(w.bundle(), "BEGIN") != 1 {
		t.Errorf("the bundle is now\n%s", w.bundle())
	}
}

func TestWhatSomebodyElseMadeIsLeftAlone(t *testing.T) {
	w := newWorld(t, lifetime)
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.name, Name: WebhookSecret},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{"tls.crt": []byte("theirs"), "tls.key": []byte("theirs")},
	}
	w.must(w.client.Create(t.Context(), foreign))
	keeper := w.keeper(nil)
	for range 2 {
		w.must(keeper.Rotate(t.Context()))
	}

	if got := w.secret(WebhookSecret); got.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("it was written: %+v", got)
	}
	if w.trusts != nil {
		t.Error("the API server was told to trust another authority than theirs")
	}
	w.assertVerified(AuthenticatorSecret, string(w.secret(AuthenticatorSecret).Data["tls.crt"]), w.bundle())
	want := `Warning NotManaged Secret "apikey-controller-webhook-tls" was not written by this controller and is left as it is: ` +
		"delete it to have it made, with the label app.kubernetes.io/managed-by=apikey-operator"
	if told := <-w.events.Events; told != want {
		t.Errorf("told %s\nwant %s", told, want)
	}
	if len(w.events.Events) != 0 {
		t.Errorf("told again: %s", <-w.events.Events)
	}
}

// An authority is about to be succeeded, or was, and something keeps the next from it.
func TestServingCertificatesAreRenewedWhileNoAuthorityCanBeSucceeded(t *testing.T) {
	due := start.Add(lifetime * 2 / 3)
	for name, test := range map[string]struct {
		spoil func(w *world) string // returns the error
		event string
	}{
		"a bundle without the label": {func(w *world) string {
			configMap := &corev1.ConfigMap{}
			w.get(BundleConfigMap, configMap)
			configMap.Labels = nil
			w.must(w.client.Update(w.Context(), configMap))
			return `ConfigMap "apikey-operator-ca" was not written by this controller and is left as it is: delete it to have it made, with the ` +
				"label app.kubernetes.io/managed-by=apikey-operator"
		}, "NotManaged"},
		"a damaged authority beside the one that signs": {func(w *world) string {
			return w.damage("1")
		}, "Damaged"},
		"the one that signs is damaged, and its predecessor is not": {func(w *world) string {
			w.leap(due)
			w.keep()
			w.leap(due.Add(lifetime / 12))
			w.keep()
			authorities, err := parseAuthorities(w.secret(AuthoritySecret))
			w.must(err)
			return w.damage(authorities[1].id)
		}, "Damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lifetime)
			w.keep()
			w.leap(due.Add(-time.Second))
			w.keep()
			want := test.spoil(w)
			before, bundle, serving := w.versions(), w.bundle(), w.secret(AuthenticatorSecret).Data["tls.crt"]
			keeper := w.keeper(nil)
			for range 12 {
				w.now = w.now.Add(lifetime / 120)
				if err := keeper.Rotate(t.Context()); err == nil || err.Error() != want {
					t.Fatalf("got  %v\nwant %s", err, want)
				}
				w.assertNoGap()
			}
			if bytes.Equal(w.secret(AuthenticatorSecret).Data["tls.crt"], serving) {
				t.Error("the certificate was not renewed")
			}
			if w.versions()[AuthoritySecret] != before[AuthoritySecret] || w.bundle() != bundle {
				t.Error("the authorities were written")
			}
			if told := <-w.events.Events; told != "Warning "+test.event+" "+want {
				t.Errorf("told %s", told)
			}
			if len(w.events.Events) != 0 {
				t.Errorf("told again: %s", <-w.events.Events)
			}
		})
	}
}

func TestNoAuthorityIsMintedScheduledOrRemovedByAClockThatIsNotTrusted(t *testing.T) {
	w := newWorld(t, lifetime)
	w.keep()
	w.leap(start.Add(lifetime * 2 / 3))
	w.keep() // there is a successor, which does not sign yet
	before, serving := w.versions(), w.secret(AuthenticatorSecret).Data["tls.crt"]

	w.clockErr = errors.New("the clock is wrong")
	w.leap(start.Add(lifetime)) // the first one has expired, and the successor may sign
	w.bundles = nil             // of those who verify with an older one, this test says nothing
	keeper := w.keeper(nil)
	for range 2 {
		if err := keeper.Rotate(t.Context()); !errors.Is(err, w.clockErr) {
			t.Fatalf("the round ends with %v", err)
		}
	}
	if after := w.versions(); after[AuthoritySecret] != before[AuthoritySecret] || after["bundle"] != before["bundle"] {
		t.Errorf("the authorities were written:\n%s", cmp.Diff(before, after))
	}
	if bytes.Equal(w.secret(AuthenticatorSecret).Data["tls.crt"], serving) {
		t.Error("the serving certificate was not renewed")
	}
	const want = "Warning ClockNotTrusted no authority is succeeded or removed until the controller can trust its clock: " +
		"its log says how far that is from the API server's"
	if told := <-w.events.Events; told != want {
		t.Errorf("told %s", told)
	}
	if len(w.events.Events) != 0 {
		t.Errorf("told again: %s", <-w.events.Events)
	}
	w.delete(&corev1.ConfigMap{}, BundleConfigMap)
	if err := keeper.Rotate(t.Context()); !errors.Is(err, w.clockErr) || strings.Count(w.bundle(), "BEGIN") != 2 {
		t.Errorf("the round ends with %v; the bundle is\n%s", err, w.bundle())
	}

	w.clockErr = nil
	w.keep()
	if strings.Count(w.bundle(), "BEGIN") != 1 {
		t.Errorf("the expired authority is still published:\n%s", w.bundle())
	}
}

func TestTheFirstAuthorityWaitsForNoClock(t *testing.T) {
	eachCall(t, func(w *world, call int) {
		w.clockErr = errors.New("the clock is wrong")
		w.keepUntil(call)
		if err := w.keeper(nil).Rotate(t.Context()); err != nil && !errors.Is(err, w.clockErr) {
			t.Fatal(err)
		}
		w.assertVerified(AuthenticatorSecret, string(w.secret(AuthenticatorSecret).Data["tls.crt"]), w.bundle())
	})
}

// damage damages the certificate of an authority, and returns what is said of it.
func (w *world) damage(id string) string {
	w.Helper()
	secret := w.secret(AuthoritySecret)
	secret.Data[id+".crt"] = []byte("damaged")
	w.must(w.client.Update(w.Context(), secret))
	return fmt.Sprintf(`the Secret "apikey-operator-ca" has damaged authorities, and none is succeeded until they are restored or removed: `+
		"%[1]s.crt and %[1]s.key: tls: failed to find any PEM data in certificate input", id)
}

func TestASuccessorSignsAtOnceWhenItsPredecessorIsRemoved(t *testing.T) {
	w := newWorld(t, lifetime)
	w.keep()
	w.leap(start.Add(lifetime * 2 / 3))
	w.keep()
	secret := w.secret(AuthoritySecret)
	authorities, err := parseAuthorities(secret)
	w.must(err)
	authorities[0].removeFrom(secret)
	w.must(w.client.Update(t.Context(), secret))

	clear(w.served) // whoever is cut off by that is
	w.bundles, w.trusts = nil, nil
	w.keep()
	if reason := w.whyReplace(AuthenticatorSecret, authorities[1]); reason != "" {
		t.Errorf("the certificate is not of the successor: %s", reason)
	}
}

func TestAuthoritiesThatCannotBeReadAreNotReplaced(t *testing.T) {
	for name, test := range map[string]struct {
		object client.Object
		want   string
	}{
		"damaged": {
			&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: AuthoritySecret, Labels: map[string]string{managedByLabel: managedBy}},
				Data:       map[string][]byte{"1.crt": []byte("damaged")},
			},
			`the Secret "apikey-operator-ca" has no authorities to sign with: restore it, or delete it to have a new authority that all who ` +
				"verify must learn of: 1.crt and 1.key: tls: failed to find any PEM data in certificate input",
		},
		"of somebody else": {
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: AuthoritySecret}},
			`Secret "apikey-operator-ca" was not written by this controller and is left as it is: delete it to have it made, with the label ` +
				"app.kubernetes.io/managed-by=apikey-operator",
		},
		"a bundle of somebody else": {
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: BundleConfigMap}},
			`ConfigMap "apikey-operator-ca" was not written by this controller and is left as it is: delete it to have it made, with the label ` +
				"app.kubernetes.io/managed-by=apikey-operator",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, lifetime)
			test.object.SetNamespace(w.name)
			w.must(w.client.Create(t.Context(), test.object))
			if err := w.keeper(nil).Rotate(t.Context()); err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if len(w.served) != 0 || w.bundles != nil {
				t.Error("certificates were written")
			}
		})
	}
}

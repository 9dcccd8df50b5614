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

	"squirrel.dev/apikey-operator/test/framework"
)

const (
	lifetime = 240 * time.Hour

	// callsOf is how many calls of the API a look makes at most.
	callsOf = 11
)

func TestEverythingIsThereAfterOneLook(t *testing.T) {
	f := newFixture(t, lifetime)
	f.keep()

	authorities, err := parseAuthorities(f.secret(AuthoritySecret))
	framework.Must(f, err)
	if len(authorities) != 1 || f.bundle() != string(bundleOf(authorities)) {
		t.Errorf("%d authorities; the bundle is\n%s", len(authorities), f.bundle())
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	framework.Must(f, f.client.Get(t.Context(), client.ObjectKey{Name: f.name}, configuration))
	if got := string(configuration.Webhooks[0].ClientConfig.CABundle); got != f.bundle() {
		t.Errorf("the API server trusts\n%s", got)
	}
	for _, name := range []string{AuthenticatorSecret, WebhookSecret} {
		secret := f.secret(name)
		if secret.Type != corev1.SecretTypeTLS || string(secret.Data["ca.crt"]) != f.bundle() {
			t.Errorf("%s is of type %s, with the authorities\n%s", name, secret.Type, secret.Data["ca.crt"])
		}
		f.assertVerified(name, string(secret.Data["tls.crt"]), f.bundle())
	}
}

func TestWhatIsGoodIsNotWrittenAgain(t *testing.T) {
	f := newFixture(t, lifetime)
	f.keep()
	before := f.versions()
	f.now = f.now.Add(lifetime/18 - time.Second) // two thirds of a serving certificate's time
	f.keep()
	if diff := cmp.Diff(before, f.versions()); diff != "" {
		t.Errorf("written:\n%s", diff)
	}
}

// versions returns the resource versions of all that is written.
func (f *fixture) versions() map[string]string {
	f.Helper()
	configMap, configuration := &corev1.ConfigMap{}, &admissionregistrationv1.ValidatingWebhookConfiguration{}
	f.get(BundleConfigMap, configMap)
	framework.Must(f, f.client.Get(f.Context(), client.ObjectKey{Name: f.name}, configuration))
	versions := map[string]string{"bundle": configMap.ResourceVersion, "webhooks": configuration.ResourceVersion}
	for _, name := range []string{AuthoritySecret, AuthenticatorSecret, WebhookSecret} {
		versions[name] = f.secret(name).ResourceVersion
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
	f := newFixture(t, lifetime)
	random := rand.New(rand.NewPCG(0, 0)) // the same in every run
	f.keep()
	for step, unlucky := 0, 0; step < steps; step++ {
		f.now = f.now.Add(lifetime / stepsOf)
		switch random.IntN(20) {
		case 0:
			f.delete(&corev1.ConfigMap{}, BundleConfigMap)
		case 1:
			f.delete(&corev1.Secret{}, AuthenticatorSecret)
		case 2:
			f.delete(&corev1.Secret{}, WebhookSecret)
		case 3, 4, 5:
			f.keepBeside(1 + random.IntN(callsOf))
		}
		if unlucky < unluckyFor && random.IntN(2) == 0 {
			unlucky++
			f.keepUntil(1 + random.IntN(callsOf))
		} else {
			unlucky = 0
			f.keep()
		}
		f.assertNoGap()
	}
	if len(f.authoritiesThatSigned) < 3 || f.largestNumberPublished < 2 {
		t.Errorf("%d authorities signed, at most %d were published at once", len(f.authoritiesThatSigned), f.largestNumberPublished)
	}
}

var errStopped = errors.New("the process was stopped")

// keepUntil has a Rotator look that is stopped before this call.
func (f *fixture) keepUntil(last int) {
	f.Helper()
	err := f.keeper(func(call int) error {
		if call >= last {
			return errStopped
		}
		return nil
	}).Rotate(f.Context())
	if err != nil && !errors.Is(err, errStopped) {
		f.Fatal(err)
	}
}

// keepBeside has a Rotator look, and another one, from beginning to end, before this call of the first.
func (f *fixture) keepBeside(at int) {
	f.Helper()
	f.mustOrLose(f.keeper(func(call int) error {
		if call == at {
			f.keep()
		}
		return nil
	}).Rotate(f.Context()))
}

// mustOrLose allows that somebody else was faster.
func (f *fixture) mustOrLose(err error) {
	f.Helper()
	if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		framework.Must(f, err)
	}
}

// eachCall runs a test for each call of a look at which something can happen.
func eachCall(t *testing.T, test func(f *fixture, call int)) {
	t.Helper()
	for call := 1; call <= callsOf; call++ {
		t.Run(fmt.Sprintf("before call %d", call), func(t *testing.T) { test(newFixture(t, lifetime), call) })
	}
}

func TestTwoLeadersAtTheStartAgreeOnOneAuthority(t *testing.T) {
	eachCall(t, func(f *fixture, call int) {
		f.keepBeside(call)
		f.keep()
		f.assertNoGap()
		if f.largestNumberPublished != 1 || len(f.authoritiesThatSigned) != 1 {
			f.Errorf("%d authorities signed, at most %d were published at once", len(f.authoritiesThatSigned), f.largestNumberPublished)
		}
	})
}

// The leader that goes has not seen yet that a successor is due; the one that comes has.
func TestALeaderThatIsSlowTakesNoAuthorityOutOfTheBundle(t *testing.T) {
	eachCall(t, func(f *fixture, call int) {
		f.keep()
		due := start.Add(lifetime * 2 / 3)
		f.leap(due.Add(-time.Second))
		configMap := &corev1.ConfigMap{}
		f.get(BundleConfigMap, configMap)
		configMap.Data["note"] = "of somebody" // so that there is something to write
		framework.Must(f, f.client.Update(f.Context(), configMap))
		slow := f.keeper(func(at int) error {
			if at == call {
				f.now = due
				f.keep()
				f.now = due.Add(time.Second)
			}
			return nil
		})
		slow.Now = func() time.Time { return due.Add(-time.Second) }
		f.mustOrLose(slow.Rotate(f.Context()))
		f.now = due.Add(2 * time.Second)
		f.keep()
		f.leap(due.Add(lifetime / 12))
		f.keep()
		f.expectSuccessorAfter(due.Add(lifetime/12 + 2*time.Second))
	})
}

func TestASuccessorThatWasMintedWhenTheProcessStoppedWaitsAllTheSame(t *testing.T) {
	eachCall(t, func(f *fixture, call int) {
		f.keep()
		f.leap(f.now.Add(lifetime * 2 / 3))
		f.keepUntil(call)
		f.leap(f.now.Add(lifetime / 12))
		f.keep()
		f.expectSuccessorAfter(f.now.Add(lifetime / 12))
	})
}

// After months without a controller there is nobody left who could sign meanwhile.
func TestTheOnlyAuthorityThatIsLeftSignsAtOnce(t *testing.T) {
	eachCall(t, func(f *fixture, call int) {
		f.keep()
		f.leap(start.Add(lifetime * 2 / 3))
		f.keepUntil(call)
		f.leap(start.Add(lifetime))
		f.bundles = nil // whoever has an old one is cut off by the end of what is in it
		f.keep()
		f.assertVerified(AuthenticatorSecret, string(f.secret(AuthenticatorSecret).Data["tls.crt"]), f.bundle())
	})
}

// A controller comes back shortly before the authority ends. From when on its successor is published, nobody who has that bundle meets
// what has ended, however late a pod reads.
func TestASuccessorSignsWhilePodsCanStillReadWhatItSigned(t *testing.T) {
	f := newFixture(t, lifetime)
	f.keep()
	f.leap(start.Add(lifetime * 11 / 12))
	f.keep()
	f.bundles = f.bundles[len(f.bundles)-1:]
	for range 24 { // hours, of which the authority has 20 left
		f.now = f.now.Add(time.Hour)
		f.keep()
		f.assertNoGap()
	}
	if len(f.authoritiesThatSigned) != 2 {
		t.Errorf("%d authorities signed", len(f.authoritiesThatSigned))
	}
}

// leap goes to another time. Nobody has worked until then, and nothing that has expired meanwhile is served any more.
func (f *fixture) leap(to time.Time) {
	f.Helper()
	f.now = to
	clear(f.served)
	for _, name := range []string{AuthenticatorSecret, WebhookSecret} {
		f.delete(&corev1.Secret{}, name)
	}
}

// expectSuccessorAfter expects a second authority to sign from then on at the latest.
func (f *fixture) expectSuccessorAfter(then time.Time) {
	f.Helper()
	f.leap(then)
	f.keep()
	authorities, err := parseAuthorities(f.secret(AuthoritySecret))
	framework.Must(f, err)
	last := authorities[len(authorities)-1]
	if reason := f.whyReplace(AuthenticatorSecret, last); len(authorities) != 2 || reason != "" {
		f.Errorf("there are %d authorities; the certificate is not of the last one: %s", len(authorities), reason)
	}
}

func (f *fixture) whyReplace(name string, signer authority) string {
	f.Helper()
	secret := f.secret(name)
	return whyIssue(secret.Data["tls.crt"], secret.Data["tls.key"], signer, f.keeper(nil).namesOf("apikey-authenticator"), f.now)
}

func TestWhatIsDeletedIsMadeAgain(t *testing.T) {
	f := newFixture(t, lifetime)
	f.keep()
	bundle, authenticator := f.bundle(), f.secret(AuthenticatorSecret).Data["tls.crt"]

	f.delete(&corev1.ConfigMap{}, BundleConfigMap)
	f.delete(&corev1.Secret{}, AuthenticatorSecret)
	f.keep()
	if f.bundle() != bundle {
		t.Errorf("the bundle is now\n%s", f.bundle())
	}
	if bytes.Equal(f.secret(AuthenticatorSecret).Data["tls.crt"], authenticator) {
		t.Error("the certificate is the old one")
	}

	clear(f.served) // whom these cut off is cut off: that is for a key that has leaked
	f.bundles, f.trusts = nil, nil
	f.delete(&corev1.Secret{}, AuthoritySecret)
	f.keep()
	if f.bundle() == bundle || strings.Count(f.bundle(), "BEGIN") != 1 {
		t.Errorf("the bundle is now\n%s", f.bundle())
	}
}

func TestWhatSomebodyElseMadeIsLeftAlone(t *testing.T) {
	f := newFixture(t, lifetime)
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.name, Name: WebhookSecret},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{"tls.crt": []byte("theirs"), "tls.key": []byte("theirs")},
	}
	framework.Must(f, f.client.Create(t.Context(), foreign))
	keeper := f.keeper(nil)
	for range 2 {
		framework.Must(f, keeper.Rotate(t.Context()))
	}

	if got := f.secret(WebhookSecret); got.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("it was written: %+v", got)
	}
	if f.trusts != nil {
		t.Error("the API server was told to trust another authority than theirs")
	}
	f.assertVerified(AuthenticatorSecret, string(f.secret(AuthenticatorSecret).Data["tls.crt"]), f.bundle())
	want := `Warning NotManaged Secret "apikey-controller-webhook-tls" was not written by this controller and is left as it is: ` +
		"delete it to have it made, with the label app.kubernetes.io/managed-by=apikey-operator"
	if told := <-f.events.Events; told != want {
		t.Errorf("told %s\nwant %s", told, want)
	}
	if len(f.events.Events) != 0 {
		t.Errorf("told again: %s", <-f.events.Events)
	}
}

// An authority is about to be succeeded, or was, and something keeps the next from it.
func TestServingCertificatesAreRenewedWhileNoAuthorityCanBeSucceeded(t *testing.T) {
	due := start.Add(lifetime * 2 / 3)
	for name, test := range map[string]struct {
		spoil func(f *fixture) string // returns the error
		event string
	}{
		"a bundle without the label": {func(f *fixture) string {
			configMap := &corev1.ConfigMap{}
			f.get(BundleConfigMap, configMap)
			configMap.Labels = nil
			framework.Must(f, f.client.Update(f.Context(), configMap))
			return `ConfigMap "apikey-operator-ca" was not written by this controller and is left as it is: delete it to have it made, with the ` +
				"label app.kubernetes.io/managed-by=apikey-operator"
		}, "NotManaged"},
		"a damaged authority beside the one that signs": {func(f *fixture) string {
			return f.damage("1")
		}, "Damaged"},
		"the one that signs is damaged, and its predecessor is not": {func(f *fixture) string {
			f.leap(due)
			f.keep()
			f.leap(due.Add(lifetime / 12))
			f.keep()
			authorities, err := parseAuthorities(f.secret(AuthoritySecret))
			framework.Must(f, err)
			return f.damage(authorities[1].id)
		}, "Damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, lifetime)
			f.keep()
			f.leap(due.Add(-time.Second))
			f.keep()
			want := test.spoil(f)
			before, bundle, serving := f.versions(), f.bundle(), f.secret(AuthenticatorSecret).Data["tls.crt"]
			keeper := f.keeper(nil)
			for range 12 {
				f.now = f.now.Add(lifetime / 120)
				if err := keeper.Rotate(t.Context()); err == nil || err.Error() != want {
					t.Fatalf("got  %v\nwant %s", err, want)
				}
				f.assertNoGap()
			}
			if bytes.Equal(f.secret(AuthenticatorSecret).Data["tls.crt"], serving) {
				t.Error("the certificate was not renewed")
			}
			if f.versions()[AuthoritySecret] != before[AuthoritySecret] || f.bundle() != bundle {
				t.Error("the authorities were written")
			}
			if told := <-f.events.Events; told != "Warning "+test.event+" "+want {
				t.Errorf("told %s", told)
			}
			if len(f.events.Events) != 0 {
				t.Errorf("told again: %s", <-f.events.Events)
			}
		})
	}
}

func TestNoAuthorityIsMintedScheduledOrRemovedByAClockThatIsNotTrusted(t *testing.T) {
	f := newFixture(t, lifetime)
	f.keep()
	f.leap(start.Add(lifetime * 2 / 3))
	f.keep() // there is a successor, which does not sign yet
	before, serving := f.versions(), f.secret(AuthenticatorSecret).Data["tls.crt"]

	f.clockErr = errors.New("the clock is wrong")
	f.leap(start.Add(lifetime)) // the first one has expired, and the successor may sign
	f.bundles = nil             // of those who verify with an older one, this test says nothing
	keeper := f.keeper(nil)
	for range 2 {
		if err := keeper.Rotate(t.Context()); !errors.Is(err, f.clockErr) {
			t.Fatalf("the round ends with %v", err)
		}
	}
	if after := f.versions(); after[AuthoritySecret] != before[AuthoritySecret] || after["bundle"] != before["bundle"] {
		t.Errorf("the authorities were written:\n%s", cmp.Diff(before, after))
	}
	if bytes.Equal(f.secret(AuthenticatorSecret).Data["tls.crt"], serving) {
		t.Error("the serving certificate was not renewed")
	}
	const want = "Warning ClockNotTrusted no authority is succeeded or removed until the controller can trust its clock: " +
		"its log says how far that is from the API server's"
	if told := <-f.events.Events; told != want {
		t.Errorf("told %s", told)
	}
	if len(f.events.Events) != 0 {
		t.Errorf("told again: %s", <-f.events.Events)
	}
	f.delete(&corev1.ConfigMap{}, BundleConfigMap)
	if err := keeper.Rotate(t.Context()); !errors.Is(err, f.clockErr) || strings.Count(f.bundle(), "BEGIN") != 2 {
		t.Errorf("the round ends with %v; the bundle is\n%s", err, f.bundle())
	}

	f.clockErr = nil
	f.keep()
	if strings.Count(f.bundle(), "BEGIN") != 1 {
		t.Errorf("the expired authority is still published:\n%s", f.bundle())
	}
}

func TestTheFirstAuthorityWaitsForNoClock(t *testing.T) {
	eachCall(t, func(f *fixture, call int) {
		f.clockErr = errors.New("the clock is wrong")
		f.keepUntil(call)
		if err := f.keeper(nil).Rotate(t.Context()); err != nil && !errors.Is(err, f.clockErr) {
			t.Fatal(err)
		}
		f.assertVerified(AuthenticatorSecret, string(f.secret(AuthenticatorSecret).Data["tls.crt"]), f.bundle())
	})
}

// damage damages the certificate of an authority, and returns what is said of it.
func (f *fixture) damage(id string) string {
	f.Helper()
	secret := f.secret(AuthoritySecret)
	secret.Data[id+".crt"] = []byte("damaged")
	framework.Must(f, f.client.Update(f.Context(), secret))
	return fmt.Sprintf(`the Secret "apikey-operator-ca" has damaged authorities, and none is succeeded until they are restored or removed: `+
		"%[1]s.crt and %[1]s.key: tls: failed to find any PEM data in certificate input", id)
}

func TestASuccessorSignsAtOnceWhenItsPredecessorIsRemoved(t *testing.T) {
	f := newFixture(t, lifetime)
	f.keep()
	f.leap(start.Add(lifetime * 2 / 3))
	f.keep()
	secret := f.secret(AuthoritySecret)
	authorities, err := parseAuthorities(secret)
	framework.Must(f, err)
	authorities[0].removeFrom(secret)
	framework.Must(f, f.client.Update(t.Context(), secret))

	clear(f.served) // whoever is cut off by that is
	f.bundles, f.trusts = nil, nil
	f.keep()
	if reason := f.whyReplace(AuthenticatorSecret, authorities[1]); reason != "" {
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
			f := newFixture(t, lifetime)
			test.object.SetNamespace(f.name)
			framework.Must(f, f.client.Create(t.Context(), test.object))
			if err := f.keeper(nil).Rotate(t.Context()); err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if len(f.served) != 0 || f.bundles != nil {
				t.Error("certificates were written")
			}
		})
	}
}

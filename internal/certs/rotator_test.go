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

	// maxCalls is the highest number of API calls of a rotation.
	maxCalls = 15
)

func TestRotate_CreatesAllObjects(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()

	authorities, err := parseAuthorities(f.secret(AuthoritySecret))
	framework.Must(f, err)
	if len(authorities) != 1 || f.bundle() != string(encodeBundle(authorities)) {
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
		f.assertVerified(f.name+"/"+name, string(secret.Data["tls.crt"]), f.bundle())
	}
}

func TestRotate_WritesNothingWhileAllCertificatesAreGood(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()
	before := f.versions()
	f.now = f.now.Add(lifetime/18 - time.Second) // two thirds of the lifetime of a serving certificate
	f.rotate()
	if diff := cmp.Diff(before, f.versions()); diff != "" {
		t.Errorf("objects were written:\n%s", diff)
	}
}

// versions returns the resource versions of all objects of the Rotator.
func (f *fixture) versions() map[string]string {
	f.Helper()
	configMap, configuration := &corev1.ConfigMap{}, &admissionregistrationv1.ValidatingWebhookConfiguration{}
	f.get(BundleConfigMap, configMap)
	framework.Must(f, f.client.Get(f.Context(), client.ObjectKey{Name: f.name}, configuration))
	versions := map[string]string{"bundle": configMap.ResourceVersion, "webhooks": configuration.ResourceVersion}
	for _, name := range []string{AuthoritySecret, AuthenticatorSecret, WebhookSecret} {
		versions[name] = f.secret(name).ResourceVersion
	}
	for _, namespace := range f.consoles {
		certificate, bundle := f.consoleObjects(namespace)
		versions[namespace+" certificate"], versions[namespace+" bundle"] = certificate.ResourceVersion, bundle.ResourceVersion
	}
	return versions
}

// Over several authorities, the process is stopped between any two API calls, two leaders rotate at once, and their objects are deleted.
// The fixture asserts after each write, and the test after each step, that all clients can verify all servers.
func TestRotate_BundlesCoverAllServedCertificates(t *testing.T) {
	const (
		steps            = 180
		stepsPerLifetime = 120
		maxStopped       = 1 // steps in a row without a complete rotation
	)
	f := newFixture(t, lifetime)
	random := rand.New(rand.NewPCG(0, 0)) // the same in every run
	f.rotate()
	for step, stopped := 0, 0; step < steps; step++ {
		f.now = f.now.Add(lifetime / stepsPerLifetime)
		switch random.IntN(20) {
		case 0:
			f.delete(&corev1.ConfigMap{}, BundleConfigMap)
		case 1:
			f.delete(&corev1.Secret{}, AuthenticatorSecret)
		case 2:
			f.delete(&corev1.Secret{}, WebhookSecret)
		case 6:
			f.deleteIn(f.consoles[0], &corev1.Secret{}, ConsoleSecret)
		case 7:
			f.deleteIn(f.consoles[0], &corev1.ConfigMap{}, BundleConfigMap)
		case 3, 4, 5:
			f.rotateConcurrently(1 + random.IntN(maxCalls))
		}
		if stopped < maxStopped && random.IntN(2) == 0 {
			stopped++
			f.rotateUntil(1 + random.IntN(maxCalls))
		} else {
			stopped = 0
			f.rotate()
		}
		f.assertCovered()
	}
	if len(f.signers) < 3 || f.maxPublished < 2 {
		t.Errorf("%d authorities signed, at most %d were published at once", len(f.signers), f.maxPublished)
	}
}

var errStopped = errors.New("the process was stopped")

// rotateUntil rotates with a process that is stopped before an API call.
func (f *fixture) rotateUntil(stopped int) {
	f.Helper()
	err := f.rotator(func(call int) error {
		if call >= stopped {
			return errStopped
		}
		return nil
	}).Rotate(f.Context())
	if err != nil && !errors.Is(err, errStopped) {
		f.Fatal(err)
	}
}

// rotateConcurrently rotates with two leaders: the second one rotates completely before an API call of the first.
func (f *fixture) rotateConcurrently(at int) {
	f.Helper()
	f.mustOrConflict(f.rotator(func(call int) error {
		if call == at {
			f.rotate()
		}
		return nil
	}).Rotate(f.Context()))
}

// mustOrConflict accepts that another leader wrote an object first.
func (f *fixture) mustOrConflict(err error) {
	f.Helper()
	if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		framework.Must(f, err)
	}
}

// beforeEachCall runs a test for each API call of a rotation.
func beforeEachCall(t *testing.T, test func(f *fixture, call int)) {
	t.Helper()
	for call := 1; call <= maxCalls; call++ {
		t.Run(fmt.Sprintf("before call %d", call), func(t *testing.T) { test(newFixture(t, lifetime), call) })
	}
}

func TestRotate_TwoLeadersCreateOneAuthority(t *testing.T) {
	t.Parallel()
	beforeEachCall(t, func(f *fixture, call int) {
		f.rotateConcurrently(call)
		f.rotate()
		f.assertCovered()
		if f.maxPublished != 1 || len(f.signers) != 1 {
			f.Errorf("%d authorities signed, at most %d were published at once", len(f.signers), f.maxPublished)
		}
	})
}

// For the old leader no successor is due yet; for the new one it is.
func TestRotate_SlowLeaderKeepsPublishedAuthorities(t *testing.T) {
	t.Parallel()
	beforeEachCall(t, func(f *fixture, call int) {
		f.rotate()
		due := start.Add(lifetime * 2 / 3)
		f.skipTo(due.Add(-time.Second))
		configMap := &corev1.ConfigMap{}
		f.get(BundleConfigMap, configMap)
		configMap.Data["note"] = "foreign" // makes the slow leader write the ConfigMap
		framework.Must(f, f.client.Update(f.Context(), configMap))
		slow := f.rotator(func(at int) error {
			if at == call {
				f.now = due
				f.rotate()
				f.now = due.Add(time.Second)
			}
			return nil
		})
		slow.Now = func() time.Time { return due.Add(-time.Second) }
		f.mustOrConflict(slow.Rotate(f.Context()))
		f.now = due.Add(2 * time.Second)
		f.rotate()
		f.skipTo(due.Add(lifetime / 12))
		f.rotate()
		f.assertSuccessorSigns(due.Add(lifetime/12 + 2*time.Second))
	})
}

func TestRotate_SuccessorWaitsAfterAStop(t *testing.T) {
	t.Parallel()
	beforeEachCall(t, func(f *fixture, call int) {
		f.rotate()
		f.skipTo(f.now.Add(lifetime * 2 / 3))
		f.rotateUntil(call)
		f.skipTo(f.now.Add(lifetime / 12))
		f.rotate()
		f.assertSuccessorSigns(f.now.Add(lifetime / 12))
	})
}

// After months without a controller, all older authorities have expired.
func TestRotate_OnlyAuthoritySignsAtOnce(t *testing.T) {
	t.Parallel()
	beforeEachCall(t, func(f *fixture, call int) {
		f.rotate()
		f.skipTo(start.Add(lifetime * 2 / 3))
		f.rotateUntil(call)
		f.skipTo(start.Add(lifetime))
		f.bundles = nil // clients with an old bundle fail, because its authority has expired
		clear(f.consoleBundles)
		f.rotate()
		f.assertVerified(f.name+"/"+AuthenticatorSecret, string(f.secret(AuthenticatorSecret).Data["tls.crt"]), f.bundle())
	})
}

// A controller starts again shortly before the authority expires. Clients with the new bundle then receive no expired certificate, even
// from slow pods.
func TestRotate_SuccessorSignsBeforePodsServeExpiredCertificates(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()
	f.skipTo(start.Add(lifetime * 11 / 12))
	f.rotate()
	f.bundles = f.bundles[len(f.bundles)-1:]
	clear(f.consoleBundles)
	for range 24 { // hours; the authority expires after 20
		f.now = f.now.Add(time.Hour)
		f.rotate()
		f.assertCovered()
	}
	if len(f.signers) != 2 {
		t.Errorf("%d authorities signed, want 2", len(f.signers))
	}
}

// skipTo sets the clock, as if no controller had run until then, and no pod served a certificate that has expired.
func (f *fixture) skipTo(to time.Time) {
	f.Helper()
	f.now = to
	clear(f.served)
	for _, name := range []string{AuthenticatorSecret, WebhookSecret} {
		f.delete(&corev1.Secret{}, name)
	}
	for _, namespace := range f.consoles {
		f.deleteIn(namespace, &corev1.Secret{}, ConsoleSecret)
	}
}

// assertSuccessorSigns asserts that a second authority signs at a time.
func (f *fixture) assertSuccessorSigns(then time.Time) {
	f.Helper()
	f.skipTo(then)
	f.rotate()
	authorities, err := parseAuthorities(f.secret(AuthoritySecret))
	framework.Must(f, err)
	last := authorities[len(authorities)-1]
	if reason := f.reissueReason(AuthenticatorSecret, last); len(authorities) != 2 || reason != "" {
		f.Errorf("%d authorities exist; the last one did not sign the certificate: %s", len(authorities), reason)
	}
}

func (f *fixture) reissueReason(name string, signer authority) string {
	f.Helper()
	secret := f.secret(name)
	return reissueReason(secret.Data["tls.crt"], secret.Data["tls.key"], signer, dnsNames("apikey-authenticator", f.name), f.now)
}

func TestRotate_CreatesDeletedObjectsAgain(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()
	bundle, authenticator := f.bundle(), f.secret(AuthenticatorSecret).Data["tls.crt"]

	f.delete(&corev1.ConfigMap{}, BundleConfigMap)
	f.delete(&corev1.Secret{}, AuthenticatorSecret)
	f.rotate()
	if f.bundle() != bundle {
		t.Errorf("the bundle is now\n%s", f.bundle())
	}
	if bytes.Equal(f.secret(AuthenticatorSecret).Data["tls.crt"], authenticator) {
		t.Error("the certificate is the old one")
	}

	clear(f.served) // clients with the old bundle fail, as after a leak of its key they must
	f.bundles, f.injectedBundles = nil, nil
	clear(f.consoleBundles)
	f.delete(&corev1.Secret{}, AuthoritySecret)
	f.rotate()
	if f.bundle() == bundle || strings.Count(f.bundle(), "BEGIN") != 1 {
		t.Errorf("the bundle is now\n%s", f.bundle())
	}
}

func TestRotate_LeavesObjectsOfOtherOwnersUnchanged(t *testing.T) {
	f := newFixture(t, lifetime)
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.name, Name: WebhookSecret},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{"tls.crt": []byte("theirs"), "tls.key": []byte("theirs")},
	}
	framework.Must(f, f.client.Create(t.Context(), foreign))
	rotator := f.rotator(nil)
	for range 2 {
		framework.Must(f, rotator.Rotate(t.Context()))
	}

	if got := f.secret(WebhookSecret); got.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("the Secret was written: %+v", got)
	}
	if f.injectedBundles != nil {
		t.Error("the CA bundle of the ValidatingWebhookConfiguration was replaced")
	}
	f.assertVerified(f.name+"/"+AuthenticatorSecret, string(f.secret(AuthenticatorSecret).Data["tls.crt"]), f.bundle())
	f.assertOneWarning(`NotManaged Secret "apikey-controller-webhook-tls"` + notManaged)
}

const notManaged = " was not created by this controller, which leaves it unchanged: delete it, and the controller creates one with the label " +
	"app.kubernetes.io/managed-by=apikey-operator"

// assertOneWarning asserts that one event was recorded, a warning with this reason and note.
func (f *fixture) assertOneWarning(want string) {
	f.Helper()
	if got := <-f.events.Events; got != "Warning "+want {
		f.Errorf("the event is %s\nwant Warning %s", got, want)
	}
	if len(f.events.Events) != 0 {
		f.Errorf("a second event was recorded: %s", <-f.events.Events)
	}
}

// A successor is due, or the next one is, and an object prevents it.
func TestRotate_RenewsServingCertificatesWhileAuthoritiesAreBlocked(t *testing.T) {
	due := start.Add(lifetime * 2 / 3)
	for name, test := range map[string]struct {
		block  func(f *fixture) (err string)
		reason string
	}{
		"a bundle without the label": {func(f *fixture) string {
			configMap := &corev1.ConfigMap{}
			f.get(BundleConfigMap, configMap)
			configMap.Labels = nil
			framework.Must(f, f.client.Update(f.Context(), configMap))
			return `ConfigMap "apikey-operator-ca"` + notManaged
		}, "NotManaged"},
		"a damaged authority, which does not sign": {func(f *fixture) string {
			return f.damage("1")
		}, "Damaged"},
		"a damaged authority, which signs after an intact one": {func(f *fixture) string {
			f.skipTo(due)
			f.rotate()
			f.skipTo(due.Add(lifetime / 12))
			f.rotate()
			authorities, err := parseAuthorities(f.secret(AuthoritySecret))
			framework.Must(f, err)
			return f.damage(authorities[1].id)
		}, "Damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, lifetime)
			f.rotate()
			f.skipTo(due.Add(-time.Second))
			f.rotate()
			want := test.block(f)
			before, bundle, serving := f.versions(), f.bundle(), f.secret(AuthenticatorSecret).Data["tls.crt"]
			rotator := f.rotator(nil)
			for range 12 {
				f.now = f.now.Add(lifetime / 120)
				if err := rotator.Rotate(t.Context()); err == nil || err.Error() != want {
					t.Fatalf("got  %v\nwant %s", err, want)
				}
				f.assertCovered()
			}
			if bytes.Equal(f.secret(AuthenticatorSecret).Data["tls.crt"], serving) {
				t.Error("the certificate was not renewed")
			}
			if f.versions()[AuthoritySecret] != before[AuthoritySecret] || f.bundle() != bundle {
				t.Error("the authorities were written")
			}
			f.assertOneWarning(test.reason + " " + want)
		})
	}
}

func TestRotate_KeepsAuthoritiesWhileTheClockIsNotTrusted(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()
	f.skipTo(start.Add(lifetime * 2 / 3))
	f.rotate() // creates a successor, which does not sign yet
	before, serving := f.versions(), f.secret(AuthenticatorSecret).Data["tls.crt"]

	f.clockErr = errors.New("the clock is wrong")
	f.skipTo(start.Add(lifetime)) // the first one has expired, and the successor may sign
	f.bundles = nil               // this test does not cover clients with an older bundle
	rotator := f.rotator(nil)
	for range 2 {
		if err := rotator.Rotate(t.Context()); !errors.Is(err, f.clockErr) {
			t.Fatalf("the error is %v", err)
		}
	}
	if after := f.versions(); after[AuthoritySecret] != before[AuthoritySecret] || after["bundle"] != before["bundle"] {
		t.Errorf("the authorities were written:\n%s", cmp.Diff(before, after))
	}
	if bytes.Equal(f.secret(AuthenticatorSecret).Data["tls.crt"], serving) {
		t.Error("the serving certificate was not renewed")
	}
	f.assertOneWarning("ClockNotTrusted no authority is created or removed while the controller's clock differs from the API server's: " +
		"see the controller's log for the difference")
	f.delete(&corev1.ConfigMap{}, BundleConfigMap)
	if err := rotator.Rotate(t.Context()); !errors.Is(err, f.clockErr) || strings.Count(f.bundle(), "BEGIN") != 2 {
		t.Errorf("the error is %v; the bundle is\n%s", err, f.bundle())
	}

	f.clockErr = nil
	f.rotate()
	if strings.Count(f.bundle(), "BEGIN") != 1 {
		t.Errorf("the expired authority is still published:\n%s", f.bundle())
	}
}

func TestRotate_CreatesTheFirstAuthorityByAnyClock(t *testing.T) {
	beforeEachCall(t, func(f *fixture, call int) {
		f.clockErr = errors.New("the clock is wrong")
		f.rotateUntil(call)
		if err := f.rotator(nil).Rotate(t.Context()); err != nil && !errors.Is(err, f.clockErr) {
			t.Fatal(err)
		}
		f.assertVerified(f.name+"/"+AuthenticatorSecret, string(f.secret(AuthenticatorSecret).Data["tls.crt"]), f.bundle())
	})
}

// damage damages the certificate of an authority, and returns the expected error.
func (f *fixture) damage(id string) string {
	f.Helper()
	secret := f.secret(AuthoritySecret)
	secret.Data[id+".crt"] = []byte("damaged")
	framework.Must(f, f.client.Update(f.Context(), secret))
	return fmt.Sprintf(`the Secret "apikey-operator-ca" has damaged authorities: restore or remove them, so that a new one can be created: `+
		"%[1]s.crt and %[1]s.key: tls: failed to find any PEM data in certificate input", id)
}

func TestRotate_SuccessorSignsAtOnceAfterItsPredecessorIsRemoved(t *testing.T) {
	f := newFixture(t, lifetime)
	f.rotate()
	f.skipTo(start.Add(lifetime * 2 / 3))
	f.rotate()
	secret := f.secret(AuthoritySecret)
	authorities, err := parseAuthorities(secret)
	framework.Must(f, err)
	authorities[0].removeFrom(secret)
	framework.Must(f, f.client.Update(t.Context(), secret))

	clear(f.served) // clients with the old bundle fail
	f.bundles, f.injectedBundles = nil, nil
	clear(f.consoleBundles)
	f.rotate()
	if reason := f.reissueReason(AuthenticatorSecret, authorities[1]); reason != "" {
		t.Errorf("the successor did not sign the certificate: %s", reason)
	}
}

func TestRotate_KeepsUnreadableAuthorities(t *testing.T) {
	for name, test := range map[string]struct {
		object client.Object
		want   string
	}{
		"damaged": {
			&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: AuthoritySecret, Labels: map[string]string{managedByLabel: managedBy}},
				Data:       map[string][]byte{"1.crt": []byte("damaged")},
			},
			`the Secret "apikey-operator-ca" has no intact authority: restore the Secret, or delete it to get a new authority, which all ` +
				"clients must then trust: 1.crt and 1.key: tls: failed to find any PEM data in certificate input",
		},
		"another owner's Secret": {
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: AuthoritySecret}},
			`Secret "apikey-operator-ca"` + notManaged,
		},
		"another owner's ConfigMap": {
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: BundleConfigMap}},
			`ConfigMap "apikey-operator-ca"` + notManaged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, lifetime)
			test.object.SetNamespace(f.name)
			framework.Must(f, f.client.Create(t.Context(), test.object))
			if err := f.rotator(nil).Rotate(t.Context()); err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if len(f.served) != 0 || f.bundles != nil {
				t.Error("certificates were written")
			}
		})
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package upgrade_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

// overlap is long enough to go back to the previous release within it.
const overlap = 20 * time.Second

// TestUpgrade upgrades an installation with keys in all states, rotates tokens, goes back, and upgrades again. No request is refused on the
// way.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for name, manifests := range map[string][]string{
		"keeps the CustomResourceDefinition":    {"rbac", "policies"},
		"restores the CustomResourceDefinition": {"crd", "rbac", "policies"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testUpgrade(t, manifests)
		})
	}
}

// testUpgrade goes back to these manifests.
func testUpgrade(t *testing.T, manifests []string) {
	t.Helper()
	previous, this := previousRelease(t), thisRelease(t)
	f := newFixture(t)
	previous.createNamespace(f)
	previous.apply(f, "crd", "rbac", "policies")
	controller := previous.startController(f)
	authenticators := []string{previous.startAuthenticator(f)}
	tokens := f.issueKeys().accepted
	for name := range tokens {
		f.awaitStatus(authenticators, tokens[name], http.StatusOK)
	}
	stopChecks := []func(){f.expectAccepted(authenticators[0], tokens)}
	before := f.stateOf()

	controller.Kill()
	this.apply(f, "crd", "rbac", "policies")
	authenticators = append(authenticators, this.startAuthenticator(f))
	for name := range tokens {
		f.awaitStatus(authenticators, tokens[name], http.StatusOK)
	}
	stopChecks = append(stopChecks, f.expectAccepted(authenticators[1], tokens))
	controller = this.startController(f)
	f.touch()
	if diff := cmp.Diff(before, f.stateOf()); diff != "" {
		t.Errorf("the upgrade changes keys or Secrets (-before +after):\n%s", diff)
	}

	former := map[string]string{"minted": tokens["minted"], "imported": tokens["imported"]}
	rotated := f.rotate(former)
	for name := range rotated {
		f.awaitStatus(authenticators, rotated[name], http.StatusOK)
	}
	for _, authenticator := range authenticators {
		stopChecks = append(stopChecks, f.expectAccepted(authenticator, rotated))
	}
	f.assertSecretReplaced(rotated["minted"])
	records := f.recordsOf(former)

	controller.Kill()
	previous.apply(f, manifests...)
	controller = previous.startController(f)
	authenticators = append(authenticators, previous.startAuthenticator(f))
	f.touch()
	if diff := cmp.Diff(records, f.recordsOf(former)); diff != "" {
		t.Errorf("the controller of the previous release changes the tokens (-before +after):\n%s", diff)
	}
	for name := range former {
		f.awaitStatus(authenticators, rotated[name], http.StatusOK)
		if ends := records[name][1].NotAfter; time.Now().After(ends.Time) {
			t.Fatalf("the overlap of %s ended at %v, before the previous release ran", name, ends)
		}
		f.awaitStatus(authenticators, former[name], http.StatusOK)
	}
	for _, stop := range stopChecks {
		stop()
	}
	for name := range former {
		ends := records[name][1].NotAfter.Time
		framework.EventuallyWithin(t, 2*overlap, framework.PollInterval, "the overlap ends", func() bool { return time.Now().After(ends) })
		f.awaitStatus(authenticators, former[name], http.StatusUnauthorized)
		f.awaitStatus(authenticators, rotated[name], http.StatusOK)
	}
	controller.Kill()
	this.apply(f, manifests...)
	this.startController(f)
	f.touch() // a rotation that is due begins with it
	for name := range former {
		if key := f.GetKey(name); apikey.ClaimOf(key) != nil || apikey.NewestToken(key).Hash != token.Hash(rotated[name]) {
			t.Errorf("the second upgrade rotates %s again", name)
		}
	}
	for name := range former {
		f.Deactivate(name)
		f.awaitStatus(authenticators, rotated[name], http.StatusUnauthorized)
		f.WaitForReady(name, v1alpha1.ReasonDeactivated)
	}
}

// rotate rotates a minted and an imported key, and returns their new tokens.
func (f *fixture) rotate(former map[string]string) map[string]string {
	f.Helper()
	replacement := token.New()
	f.UpdateKey("minted", func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{
			Request: &v1alpha1.RotationRequest{At: metav1.Now(), Overlap: &metav1.Duration{Duration: overlap}},
		}
	})
	f.UpdateKey("imported", func(key *v1alpha1.APIKey) {
		key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(replacement), token.Hint(replacement)
		key.Spec.Rotation = &v1alpha1.Rotation{Overlap: &metav1.Duration{Duration: overlap}}
	})
	for name, plaintext := range former {
		framework.Eventually(f, name+" is rotated", func() bool {
			key := f.GetKey(name)
			return apikey.ClaimOf(key) == nil && apikey.NewestToken(key).Hash != token.Hash(plaintext) &&
				key.Status.ObservedGeneration == key.Generation
		})
	}
	return map[string]string{"minted": f.tokenOf("minted"), "imported": replacement}
}

// assertSecretReplaced checks that the Secret of the key "minted" has the new token and is not immutable any more.
func (f *fixture) assertSecretReplaced(plaintext string) {
	f.Helper()
	secret := f.Secret("minted-token")
	if ptr.Deref(secret.Immutable, false) || string(secret.Data["token"]) != plaintext ||
		apikey.NewestToken(f.GetKey("minted")).Hash != token.Hash(plaintext) {
		f.Errorf("the Secret is %+v", secret.ObjectMeta)
	}
}

// recordsOf returns the token records of keys, without the fields that the previous release does not know.
func (f *fixture) recordsOf(keys map[string]string) map[string][]v1alpha1.TokenRecord {
	f.Helper()
	records := map[string][]v1alpha1.TokenRecord{}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		for _, record := range f.GetKey(name).Status.Tokens {
			record.Overlap = nil
			records[name] = append(records[name], record)
		}
	}
	return records
}

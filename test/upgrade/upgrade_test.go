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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// overlap is long enough to go back to the previous release within it.
const overlap = 20 * time.Second

// TestUpgrade upgrades an installation with keys in all states, rotates tokens, goes back, and upgrades again. No request is refused on the
// way.
func TestUpgrade(t *testing.T) {
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
	env := testenv.StartEmpty(t)
	f := &fixture{testenv.NewFixture(t, env)}
	previous.createNamespace(f)
	previous.apply(f, "crd", "rbac", "policies")
	controller := previous.startController(f)
	authenticators := []string{previous.startAuthenticator(f)}
	tokens := f.issueKeys()
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

// issueKeys creates keys in all states, and returns the tokens that are accepted.
func (f *fixture) issueKeys() map[string]string {
	f.Helper()
	imported := token.New()
	deactivated, expired := token.New(), token.New()
	imports := func(plaintext string) func(*v1alpha1.APIKey) {
		return func(key *v1alpha1.APIKey) {
			key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(plaintext), token.Hint(plaintext)
		}
	}
	withTTL := func(ttl time.Duration) func(*v1alpha1.APIKey) {
		return func(key *v1alpha1.APIKey) {
			key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: ttl}}
		}
	}
	f.Create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "secret-conflict-token"}, Data: map[string][]byte{"token": []byte("of another application")},
	})
	create := func(name, reason string, change ...func(*v1alpha1.APIKey)) {
		f.CreateKey(name, change...)
		f.WaitForReady(name, reason)
	}
	create("minted", v1alpha1.ReasonIssued)
	create("unread", v1alpha1.ReasonIssued)
	create("ttl", v1alpha1.ReasonIssued, withTTL(time.Hour))
	create("named", v1alpha1.ReasonIssued, func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{Name: "named-token", Labels: map[string]v1alpha1.LabelValue{"team": "shop"}}
	})
	create("imported", v1alpha1.ReasonIssued, imports(imported))
	create("deactivated", v1alpha1.ReasonIssued)
	create("imported-deactivated", v1alpha1.ReasonIssued, imports(deactivated))
	create("expired", v1alpha1.ReasonExpired, imports(expired), func(key *v1alpha1.APIKey) {
		key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(2 * time.Second)))
	})
	create("app-name-conflict", v1alpha1.ReasonAppNameConflict, func(key *v1alpha1.APIKey) { key.Spec.AppName = "App minted" })
	create("token-hash-conflict", v1alpha1.ReasonTokenHashConflict, imports(imported))
	create("secret-conflict", v1alpha1.ReasonSecretConflict)
	for _, name := range []string{"deactivated", "imported-deactivated"} {
		f.Deactivate(name)
		f.WaitForReady(name, v1alpha1.ReasonDeactivated)
	}
	tokens := map[string]string{"imported": imported}
	for _, name := range []string{"minted", "unread", "ttl", "named"} {
		tokens[name] = f.tokenOf(name)
	}
	if secret := f.Secret("minted-token"); !ptr.Deref(secret.Immutable, false) {
		f.Error("the previous release does not write immutable Secrets: choose another case")
	}
	return tokens
}

// keyState is the state of a key and its Secret that an upgrade must not change.
type keyState struct {
	UID           string
	Tokens        []v1alpha1.TokenRecord
	Reason        string
	DeactivatedAt *metav1.Time
	SecretName    string
	SecretUID     string
	Secret        map[string][]byte
}

func (f *fixture) stateOf() map[string]keyState {
	f.Helper()
	states := map[string]keyState{}
	for _, key := range f.Keys() {
		state := keyState{
			UID: string(key.UID), Tokens: key.Status.Tokens, DeactivatedAt: key.Status.DeactivatedAt, SecretName: key.Status.SecretName,
		}
		for _, condition := range key.Status.Conditions {
			state.Reason += condition.Type + "=" + string(condition.Status) + " " + condition.Reason + ". "
		}
		if secret := f.Secret(key.Name + "-token"); secret != nil {
			state.SecretUID, state.Secret = string(secret.UID), secret.Data
		}
		states[key.Name] = state
	}
	return states
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

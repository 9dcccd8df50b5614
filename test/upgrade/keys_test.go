// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package upgrade_test

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// tokens are tokens by the names of their keys.
type tokens struct{ accepted, refused map[string]string }

// issueKeys creates keys in all states, and returns their tokens.
func (f *fixture) issueKeys() tokens {
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
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "secret-conflict-token"},
		Data:       map[string][]byte{"token": []byte("of another application")},
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
	for _, name := range []string{"app-name-conflict", "token-hash-conflict", "secret-conflict"} {
		framework.Eventually(f, name+" is stalled", func() bool {
			return meta.IsStatusConditionTrue(f.GetKey(name).Status.Conditions, v1alpha1.ConditionStalled)
		})
	}
	refused := map[string]string{"deactivated": f.tokenOf("deactivated"), "imported-deactivated": deactivated, "expired": expired}
	for _, name := range []string{"deactivated", "imported-deactivated"} {
		f.Deactivate(name)
		f.WaitForReady(name, v1alpha1.ReasonDeactivated)
	}
	accepted := map[string]string{"imported": imported}
	for _, name := range []string{"minted", "unread", "ttl", "named"} {
		accepted[name] = f.tokenOf(name)
	}
	if secret := f.Secret("minted-token"); !ptr.Deref(secret.Immutable, false) {
		f.Error("the previous release does not write immutable Secrets: choose another case")
	}
	return tokens{accepted, refused}
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

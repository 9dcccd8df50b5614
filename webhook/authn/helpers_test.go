// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// today is the time of the clock.
var today = time.Date(2027, time.March, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return today }

// newKey returns a key with read and write access, after these changes.
func newKey(namespace, name string, changes ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-of-" + name)},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true, WriteAccess: true},
	}
	for _, change := range changes {
		change(key)
	}
	return key
}

// issued adds a token that was handed over.
func issued(plaintext string, changes ...func(*v1alpha1.TokenRecord)) func(*v1alpha1.APIKey) {
	// In the future: only the presence of notBefore matters.
	changes = append([]func(*v1alpha1.TokenRecord){func(r *v1alpha1.TokenRecord) { r.NotBefore = at(today.Add(time.Hour)) }}, changes...)
	return claimed(plaintext, changes...)
}

// claimed adds a token that was not handed over.
func claimed(plaintext string, changes ...func(*v1alpha1.TokenRecord)) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) {
		recorded := v1alpha1.TokenRecord{Hash: token.Hash(plaintext)}
		for _, change := range changes {
			change(&recorded)
		}
		key.Status.Tokens = append(key.Status.Tokens, recorded)
	}
}

func uid(uid types.UID) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.UID = uid }
}

func access(read, write bool) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.ReadAccess, key.Spec.WriteAccess = read, write }
}

func inactive(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }

func beingDeleted(key *v1alpha1.APIKey) { key.DeletionTimestamp = at(today) }

func ended(key *v1alpha1.APIKey) { key.Status.DeactivatedAt = at(today) }

func expires(instant time.Time) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = at(instant) }
}

func notAfter(instant time.Time) func(*v1alpha1.TokenRecord) {
	return func(recorded *v1alpha1.TokenRecord) { recorded.NotAfter = at(instant) }
}

func hashed(hash string) func(*v1alpha1.TokenRecord) {
	return func(recorded *v1alpha1.TokenRecord) { recorded.Hash = hash }
}

func at(instant time.Time) *metav1.Time { return &metav1.Time{Time: instant} }

// keyringOf returns a synced Keyring of these keys.
func keyringOf(t testing.TB, keys ...*v1alpha1.APIKey) *authn.Keyring {
	t.Helper()
	keyring := authn.NewKeyring()
	framework.Must(t, keyring.Replace(objects(keys...), "1"))
	return keyring
}

func objects(keys ...*v1alpha1.APIKey) []any {
	objects := make([]any, len(keys))
	for i, key := range keys {
		objects[i] = key
	}
	return objects
}

// decide returns the verdict on a request with a token that needs read access.
func decide(keyring *authn.Keyring, namespace, plaintext string) authn.Verdict {
	return authn.NewAuthenticator(keyring, 0, clock).Decide(
		authn.Request{Namespace: namespace, Credential: authn.NewCredential(plaintext), Access: authn.Read})
}

// outcome is the part of a verdict that tests compare.
type outcome struct {
	Decision authn.Decision
	Reason   authn.Reason
	UID      string
}

func outcomeOf(verdict authn.Verdict) outcome {
	outcome := outcome{Decision: verdict.Decision, Reason: verdict.Reason}
	if verdict.Key != nil {
		outcome.UID = verdict.Key.UID
	}
	return outcome
}

func expect(t testing.TB, keyring *authn.Keyring, namespace, plaintext string, want outcome) {
	t.Helper()
	if got := outcomeOf(decide(keyring, namespace, plaintext)); got != want {
		t.Errorf("the verdict for %q in %q is %v, want %v", plaintext, namespace, got, want)
	}
}

func granted(uid string) outcome { return outcome{authn.Granted, "", uid} }

var unknown = outcome{authn.Unauthenticated, authn.ReasonKeyUnknown, ""}

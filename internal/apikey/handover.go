// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
)

const defaultSecretKey = "token"

// SecretKey returns the key in the one-time Secret's data that holds the token.
func SecretKey(key *v1alpha1.APIKey) string {
	if key.Spec.Secret != nil && key.Spec.Secret.Key != "" {
		return key.Spec.Secret.Key
	}
	return defaultSecretKey
}

// TokenIn returns the key's newest token if the Secret contains it. A user can forge the owner reference and the type of a Secret, but not
// a token with the recorded hash. The owner reference may be missing: `kubectl delete --cascade=orphan` removes it.
func TokenIn(key *v1alpha1.APIKey, secret *corev1.Secret) (plaintext string, ok bool) {
	plaintext = string(secret.Data[SecretKey(key)])
	owner := metav1.GetControllerOf(secret)
	if secret.Type != v1alpha1.SecretTypeToken || (owner != nil && owner.UID != key.UID) ||
		!IsClaimed(key) || token.Hash(plaintext) != key.Status.Tokens[0].Hash {
		return "", false
	}
	return plaintext, true
}

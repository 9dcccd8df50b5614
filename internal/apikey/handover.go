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

// SecretKey is the entry of the one-time Secret that holds the token.
func SecretKey(key *v1alpha1.APIKey) string {
	if key.Spec.Secret != nil && key.Spec.Secret.Key != "" {
		return key.Spec.Secret.Key
	}
	return defaultSecretKey
}

// TokenIn returns the key's token when the Secret is the one that the controller wrote for the key: its owner reference and type can be
// forged, a token of the recorded hash cannot. The reference may be gone: it is, of a key that is being deleted with --cascade=orphan.
func TokenIn(key *v1alpha1.APIKey, secret *corev1.Secret) (plaintext string, ok bool) {
	plaintext = string(secret.Data[SecretKey(key)])
	owner := metav1.GetControllerOf(secret)
	if secret.Type != v1alpha1.SecretTypeToken || (owner != nil && owner.UID != key.UID) ||
		!IsClaimed(key) || token.Hash(plaintext) != key.Status.Tokens[0].Hash {
		return "", false
	}
	return plaintext, true
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
)

const defaultSecretKey = "token"

// SecretKey is the entry of the one-time Secret that holds the token.
func (k *APIKey) SecretKey() string {
	if k.Spec.Secret != nil && k.Spec.Secret.Key != "" {
		return k.Spec.Secret.Key
	}
	return defaultSecretKey
}

// TokenIn returns the key's token when the Secret is the one that the controller wrote for the key: its owner reference and type can be
// forged, a token of the recorded hash cannot. The reference may be gone: it is, of a key that is being deleted with --cascade=orphan.
func (k *APIKey) TokenIn(secret *corev1.Secret) (plaintext string, ok bool) {
	plaintext = string(secret.Data[k.SecretKey()])
	owner := metav1.GetControllerOf(secret)
	if secret.Type != SecretTypeToken || (owner != nil && owner.UID != k.UID) ||
		!k.Claimed() || token.Hash(plaintext) != k.Status.Tokens[0].Hash {
		return "", false
	}
	return plaintext, true
}

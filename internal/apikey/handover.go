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

// SecretName returns the name of the key's one-time Secret.
func SecretName(key *v1alpha1.APIKey) string {
	if key.Spec.Secret != nil && key.Spec.Secret.Name != "" {
		return key.Spec.Secret.Name
	}
	return key.Name + "-token"
}

// TokenIn returns the key's token in the Secret, if the Secret contains one that the status records. A user can forge the owner reference
// and the type of a Secret, but not a token with a recorded hash. The owner reference may be missing: `kubectl delete --cascade=orphan`
// removes it.
func TokenIn(key *v1alpha1.APIKey, secret *corev1.Secret) (plaintext string, ok bool) {
	if RecordIn(key, secret) == nil {
		return "", false
	}
	return string(secret.Data[SecretKey(key)]), true
}

// RecordIn returns the record of the token that [TokenIn] returns, or nil.
func RecordIn(key *v1alpha1.APIKey, secret *corev1.Secret) *v1alpha1.TokenRecord {
	owner := metav1.GetControllerOf(secret)
	if secret.Type != v1alpha1.SecretTypeToken || (owner != nil && owner.UID != key.UID) {
		return nil
	}
	return RecordOf(key, token.Hash(string(secret.Data[SecretKey(key)])))
}

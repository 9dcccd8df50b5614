// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

func TestTokenIn(t *testing.T) {
	newest, superseded, claim := token.New(), token.New(), token.New()
	shop := key("frontend", 0)
	shop.Status.Tokens = []v1alpha1.TokenRecord{
		recordOf(token.Hash(newest), notBefore), recordOf(token.Hash(superseded), notBefore, notAfter), recordOf(token.Hash(claim), claimedAt),
	}
	owner := metav1.OwnerReference{Kind: "APIKey", UID: shop.UID, Controller: new(true)}
	for _, test := range []struct {
		rule, plaintext string
		change          func(*corev1.Secret)
		ok              bool
	}{
		{"the newest token", newest, nil, true},
		{"a superseded token", superseded, nil, true},
		{"the claimed token", claim, nil, true},
		{"another token", token.New(), nil, false},
		{"no token", newest, func(s *corev1.Secret) { s.Data = nil }, false},
		{"further data", newest, func(s *corev1.Secret) { s.Data["user"] = []byte("me") }, true},
		{"immutable, as earlier versions wrote it", newest, func(s *corev1.Secret) { s.Immutable = new(true) }, true},
		{"without an owner", newest, func(s *corev1.Secret) { s.OwnerReferences = nil }, true},
		{"with another owner", newest, func(s *corev1.Secret) { s.OwnerReferences[0].UID = "another" }, false},
		{"of another type", newest, func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			secret := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{owner}},
				Type:       v1alpha1.SecretTypeToken,
				Data:       map[string][]byte{"token": []byte(test.plaintext)},
			}
			if test.change != nil {
				test.change(secret)
			}
			got, ok := apikey.TokenIn(&shop, secret)
			want := ""
			if test.ok {
				want = test.plaintext
			}
			if got != want || ok != test.ok {
				t.Errorf("TokenIn = %q, %t, want %q, %t", got, ok, want, test.ok)
			}
			if record := apikey.RecordIn(&shop, secret); (record != nil) != test.ok || (test.ok && record.Hash != token.Hash(want)) {
				t.Errorf("RecordIn = %v", record)
			}
		})
	}
}

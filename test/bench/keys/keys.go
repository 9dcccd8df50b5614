// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keys creates the APIKeys of the benchmarks.
package keys

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// Key is an issued key with read access.
type Key struct {
	number           int
	uid              types.UID
	Namespace, Token string
}

// Mint returns this many keys, spread over this many namespaces.
func Mint(count, namespaces int) []Key {
	minted := make([]Key, count)
	for i := range minted {
		minted[i] = Key{number: i, uid: uuid.NewUUID(), Namespace: fmt.Sprint("namespace-", i%namespaces), Token: token.New()}
	}
	return minted
}

// Object returns the APIKey of a key: a name of 15 bytes, an app name of 20 bytes, and a UID of 36 bytes.
func (k *Key) Object() *v1alpha1.APIKey {
	return &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: fmt.Sprintf("backend-%07d", k.number), UID: k.uid},
		Spec:       v1alpha1.APIKeySpec{AppName: fmt.Sprintf("Backend App %08d", k.number), ReadAccess: true},
		Status: v1alpha1.APIKeyStatus{
			Tokens: []v1alpha1.TokenRecord{{Hash: token.Hash(k.Token), Hint: token.Hint(k.Token), NotBefore: &metav1.Time{}}},
		},
	}
}

// Fill replaces the keys of a Keyring by these.
func Fill(keyring *authn.Keyring, minted []Key) error {
	objects := make([]any, len(minted))
	for i := range minted {
		objects[i] = minted[i].Object()
	}
	return keyring.Replace(objects, "1")
}

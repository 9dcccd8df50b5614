// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// The Keyring of this example has one key, with read access. A process fills its Keyring with [authn.Keyring.Run].
func Example() {
	keyring := authn.NewKeyring()
	err := keyring.Replace([]any{&v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "frontend"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Frontend", ReadAccess: true},
		Status: v1alpha1.APIKeyStatus{
			Tokens: []v1alpha1.TokenRecord{{Hash: token.Hash("sq_example"), NotBefore: &metav1.Time{Time: time.Now()}}},
		},
	}}, "")
	if err != nil {
		panic(err)
	}
	authenticator := authn.NewAuthenticator(keyring, 0, time.Now)

	for _, check := range []struct{ namespace, method, token string }{
		{"shop", http.MethodGet, "sq_example"},
		{"shop", http.MethodPost, "sq_example"},
		{"bank", http.MethodGet, "sq_example"},
	} {
		verdict := authenticator.Decide(authn.Request{
			Namespace:  check.namespace,
			Credential: authn.ExtractCredential([]string{check.token}, nil),
			Access:     authn.AccessFor(check.method),
		})
		fmt.Printf("%s in %s: %s %q\n", check.method, check.namespace, verdict.Decision, verdict.Reason)
	}
	// Output:
	// GET in shop: granted ""
	// POST in shop: forbidden "NoWriteAccess"
	// GET in bank: unauthenticated "KeyUnknown"
}

func ExampleAccessFor() {
	for _, method := range []string{http.MethodGet, http.MethodDelete, "PROPFIND", "get"} {
		fmt.Println(method, authn.AccessFor(method))
	}
	// Output:
	// GET read
	// DELETE write
	// PROPFIND write
	// get write
}

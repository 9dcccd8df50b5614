// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"fmt"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/test/bench/keys"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func BenchmarkDecide(b *testing.B) {
	for _, count := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(count, " keys"), func(b *testing.B) {
			minted, keyring := keys.Mint(count, 100), authn.NewKeyring()
			framework.Must(b, keys.Fill(keyring, minted))
			authenticator := authn.NewAuthenticator(keyring, time.Hour, time.Now)
			go func() { _ = authenticator.CountMinutes(b.Context()) }()
			requests := make([]authn.Request, count)
			for i := range minted {
				requests[i] = authn.Request{
					Namespace: minted[i].Namespace, Credential: authn.NewCredential(minted[i].Token), Access: authn.Read,
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if verdict := authenticator.Decide(requests[i%count]); verdict.Decision != authn.Granted {
					b.Fatalf("the verdict is %v", verdict.Decision)
				}
			}
		})
	}
}

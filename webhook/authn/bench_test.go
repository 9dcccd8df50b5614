// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"squirrel.dev/apikey-operator/api/token"
)

var benchmarkSizes = []int{1, 1_000, 100_000, 1_000_000}

func benchmarkKey(i int, minted string) *wireKey {
	now := timestamp(metav1.Now())
	key := &wireKey{
		Metadata: wireMetadata{
			Namespace: fmt.Sprintf("namespace-%d", i%1000),
			Name:      fmt.Sprintf("frontend-%06d", i),
			UID:       types.UID(string(uuid.NewUUID())),
		},
		Spec: wireSpec{AppName: fmt.Sprintf("Frontend App %07d", i), ReadAccess: true},
	}
	key.Status.Tokens = append(key.Status.Tokens, struct {
		Hash      string     `json:"hash"`
		NotBefore *timestamp `json:"notBefore"`
		NotAfter  *timestamp `json:"notAfter"`
	}{Hash: token.Hash(minted), NotBefore: &now})
	return key
}

func BenchmarkVerdict(b *testing.B) {
	for _, size := range benchmarkSizes {
		tokens := make([]string, size)
		objects := make([]any, size)
		plain := make(map[token.Digest]struct{})
		for i := range tokens {
			tokens[i] = token.New()
			objects[i], _ = recordOf(benchmarkKey(i, tokens[i]))
			plain[token.Sum(tokens[i])] = struct{}{}
		}
		keyring := NewKeyring()
		keyring.Replace(objects, "")
		objects = nil
		a := NewAuthenticator(keyring, 0, time.Now)
		ns := make([]string, 1000)
		for i := range ns {
			ns[i] = fmt.Sprintf("namespace-%d", i)
		}
		order := rand.Perm(size)
		all := make([]byte, 0, size*46)
		for _, i := range order {
			all = append(all, tokens[i]...)
		}
		flat := string(all)
		requests := make([]Request, size)
		for at, i := range order {
			requests[at] = Request{Namespace: ns[i%1000], Credential: CredentialOf(flat[at*46:][:46]), Access: Read}
		}
		b.Run(fmt.Sprintf("verdict/%d", size), func(b *testing.B) {
			i := 0
			for b.Loop() {
				if a.Decide(requests[i]).Decision != Granted {
					b.Fatal()
				}
				if i++; i == size {
					i = 0
				}
			}
		})
		b.Run(fmt.Sprintf("map/%d", size), func(b *testing.B) {
			i := 0
			for b.Loop() {
				if _, ok := plain[token.Sum(requests[i].Credential.token)]; !ok {
					b.Fatal()
				}
				if i++; i == size {
					i = 0
				}
			}
		})
		b.Run(fmt.Sprintf("tokensum/%d", size), func(b *testing.B) {
			i := 0
			for b.Loop() {
				token.Sum(requests[i].Credential.token)
				if i++; i == size {
					i = 0
				}
			}
		})
		b.Run(fmt.Sprintf("sha256/%d", size), func(b *testing.B) {
			i := 0
			bytes := []byte(tokens[0])
			for b.Loop() {
				sha256.Sum256(bytes)
				if i++; i == size {
					i = 0
				}
			}
		})
	}
}
func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		time.Now()
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/webhook/authn"
)

var benchmarkedKeys = []int{1, 1_000, 100_000, 1_000_000}

const benchmarkNamespaces = 100

// BenchmarkVerdict measures Decide for tokens in random order, and beside it the least that could be: the hash of a token, and the
// hash and a lookup in a plain Go map of as many digests.
func BenchmarkVerdict(b *testing.B) {
	for _, keys := range benchmarkedKeys {
		tokens := mintTokens(keys)
		keyring := authn.NewKeyring()
		succeed(b, keyring.Replace(asBuffered(b, keyring, tokens), "1"))
		plain := make(map[token.Digest]*authn.Key, keys)
		for i, minted := range tokens {
			plain[token.Sum(minted)] = decide(keyring, namespaceOf(i), minted).Key
		}
		requests := inRandomOrder(tokens)

		b.Run(fmt.Sprintf("of=Keyring/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			authenticator := authn.NewAuthenticator(keyring, 0, time.Now)
			for i := 0; b.Loop(); i++ {
				if verdict := authenticator.Decide(requests[i%keys].Request); verdict.Decision != authn.Granted {
					b.Fatal(verdict)
				}
			}
		})
		b.Run(fmt.Sprintf("of=PlainMap/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if key := plain[sha256.Sum256(requests[i%keys].token)]; key.Access != authn.Read {
					b.Fatal(key)
				}
			}
		})
		b.Run(fmt.Sprintf("of=SHA256/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				sha256.Sum256(requests[i%keys].token)
			}
		})
	}
}

// BenchmarkBytesPerKey measures the memory that a Keyring takes, all included.
func BenchmarkBytesPerKey(b *testing.B) {
	for _, keys := range benchmarkedKeys[1:] {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			for b.Loop() {
				before := liveBytes()
				keyring := authn.NewKeyring()
				succeed(b, keyring.Replace(asBuffered(b, keyring, mintTokens(keys)), "1"))
				b.ReportMetric(float64(liveBytes()-before)/float64(keys), "B/key")
				runtime.KeepAlive(keyring)
			}
		})
	}
}

func liveBytes() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and weak pointers held
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return int64(memory.HeapAlloc)
}

func mintTokens(count int) []string {
	tokens := make([]string, count)
	for i := range tokens {
		tokens[i] = token.New()
	}
	return tokens
}

func namespaceOf(i int) string { return fmt.Sprint("namespace-", i%benchmarkNamespaces) }

// asBuffered returns keys with these tokens as a Reflector buffers them: names of 15 bytes, app names of 20, UIDs of 36.
func asBuffered(b *testing.B, keyring *authn.Keyring, tokens []string) []any {
	transform := keyring.Transformer()
	buffered := make([]any, len(tokens))
	for i, minted := range tokens {
		key := newKey(namespaceOf(i), fmt.Sprintf("backend-%07d", i), issued(minted), access(true, false), func(k *v1alpha1.APIKey) {
			k.UID = types.UID(strings.Clone(string(uuid.NewUUID())))
			k.Spec.AppName = fmt.Sprintf("Backend App %08d", i)
		})
		var err error
		buffered[i], err = transform(key)
		succeed(b, err)
	}
	return buffered
}

type benchmarkRequest struct {
	authn.Request
	token []byte
}

// inRandomOrder returns requests for keys in random order whose tokens lie in memory one behind the other, as if each had just arrived.
func inRandomOrder(tokens []string) []benchmarkRequest {
	namespaces := make([]string, benchmarkNamespaces)
	for i := range namespaces {
		namespaces[i] = namespaceOf(i)
	}
	order := rand.Perm(len(tokens))
	var arrived strings.Builder
	for _, i := range order {
		arrived.WriteString(tokens[i])
	}
	text, bytes := arrived.String(), []byte(arrived.String())
	requests := make([]benchmarkRequest, len(tokens))
	for at, i := range order {
		from, to := at*token.Length, (at+1)*token.Length
		requests[at].token = bytes[from:to]
		requests[at].Request = authn.Request{
			Namespace: namespaces[i%benchmarkNamespaces], Credential: authn.CredentialOf(text[from:to]), Access: authn.Read}
	}
	return requests
}

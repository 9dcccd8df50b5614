// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Records of tokens in each state.
func recordOf(hash string, change ...func(*v1alpha1.TokenRecord)) v1alpha1.TokenRecord {
	record := v1alpha1.TokenRecord{Hash: hash, Hint: hash[7:14]}
	for _, c := range change {
		c(&record)
	}
	return record
}

func claimedAt(r *v1alpha1.TokenRecord) { r.ClaimedAt = new(metav1.Unix(100, 0)) }
func notBefore(r *v1alpha1.TokenRecord) { r.NotBefore = new(metav1.Unix(100, 0)) }
func notAfter(r *v1alpha1.TokenRecord)  { r.NotAfter = new(metav1.Unix(200, 0)) }

func TestRecordsOfTokens(t *testing.T) {
	issuedA, issuedB := recordOf(hashA, notBefore), recordOf(hashB, notBefore)
	supersededA, supersededB := recordOf(hashA, notBefore, notAfter), recordOf(hashB, notBefore, notAfter)
	supersededClaim := recordOf(hashB, claimedAt, notBefore, notAfter)
	claim, importedClaim, acceptedClaim := recordOf(hashB, claimedAt), recordOf(hashB), recordOf(hashB, claimedAt, notBefore)
	hintA, hintB := issuedA.Hint, issuedB.Hint
	type tokens = []v1alpha1.TokenRecord
	for _, test := range []struct {
		rule            string
		tokens          tokens
		claimed, issued bool
		newest, claim   string
		hint            string
		afterDrop       tokens // if the claim is dropped
	}{
		{rule: "no token"},
		{"an imported hash", tokens{importedClaim}, true, false, "", hashB, hintB, nil},
		{"a minted hash", tokens{claim}, true, false, "", hashB, hintB, nil},
		{"a token", tokens{issuedA}, true, true, hashA, "", hintA, tokens{issuedA}},
		{"a token and an imported hash", tokens{issuedA, importedClaim}, true, true, hashA, hashB, hintA, tokens{issuedA}},
		{"a token and a claim", tokens{issuedA, claim}, true, true, hashA, hashB, hintA, tokens{issuedA}},
		{"a token and an accepted claim", tokens{issuedA, acceptedClaim}, true, true, hashA, hashB, hintA, tokens{issuedA, acceptedClaim}},
		{"an accepted claim alone", tokens{acceptedClaim}, true, true, hashB, hashB, hintB, tokens{acceptedClaim}},
		{"a superseded token", tokens{issuedB, supersededA}, true, true, hashB, "", hintB, tokens{issuedB, supersededA}},
		{"a superseded token and a claim", tokens{issuedA, supersededB, claim}, true, true, hashA, hashB, hintA, tokens{issuedA, supersededB}},
		{"a superseded claim", tokens{issuedA, supersededClaim}, true, true, hashA, "", hintA, tokens{issuedA, supersededClaim}},
	} {
		t.Run(test.rule, func(t *testing.T) {
			key := &v1alpha1.APIKey{Status: v1alpha1.APIKeyStatus{Tokens: test.tokens}}
			hashOf := func(record *v1alpha1.TokenRecord) string {
				if record == nil {
					return ""
				}
				return record.Hash
			}
			if apikey.IsClaimed(key) != test.claimed || apikey.IsIssued(key) != test.issued {
				t.Errorf("IsClaimed = %v, IsIssued = %v, want %v, %v", apikey.IsClaimed(key), apikey.IsIssued(key), test.claimed, test.issued)
			}
			if got := hashOf(apikey.NewestToken(key)); got != test.newest {
				t.Errorf("NewestToken has the hash %q, want %q", got, test.newest)
			}
			if got := hashOf(apikey.ClaimOf(key)); got != test.claim {
				t.Errorf("ClaimOf has the hash %q, want %q", got, test.claim)
			}
			if got := apikey.HintOf(key); got != test.hint {
				t.Errorf("HintOf = %q, want %q", got, test.hint)
			}
			apikey.DropClaim(key)
			if diff := cmp.Diff(test.afterDrop, key.Status.Tokens); diff != "" {
				t.Errorf("the tokens after DropClaim (-want +got):\n%s", diff)
			}
		})
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"slices"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// The status records the newest token first, behind it the tokens that it superseded, and last a claim, if there is one. A claim is the
// hash of a token that is being handed over or imported. The claim of a rotation is accepted before its token is handed over: it has
// notBefore and claimedAt.

// IsIssued reports whether any token of the key is accepted, or was accepted before it was superseded.
func IsIssued(key *v1alpha1.APIKey) bool {
	return slices.ContainsFunc(key.Status.Tokens, func(record v1alpha1.TokenRecord) bool { return record.NotBefore != nil })
}

// IsClaimed reports whether the status records a token hash, whether or not its token was issued.
func IsClaimed(key *v1alpha1.APIKey) bool {
	return len(key.Status.Tokens) > 0
}

// NewestToken returns the record of the newest token that was handed over or imported. It is nil if the key is not issued.
func NewestToken(key *v1alpha1.APIKey) *v1alpha1.TokenRecord {
	var accepted *v1alpha1.TokenRecord
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		if !isClaim(record) {
			return record
		}
		if record.NotBefore != nil {
			accepted = record
		}
	}
	return accepted
}

// RecordOf returns the record of the token with a hash, or nil if the key has none.
func RecordOf(key *v1alpha1.APIKey, hash string) *v1alpha1.TokenRecord {
	if at := indexOf(key, hash); at >= 0 {
		return &key.Status.Tokens[at]
	}
	return nil
}

// indexOf returns the index of the record of the token with a hash, or -1.
func indexOf(key *v1alpha1.APIKey, hash string) int {
	for i := range key.Status.Tokens { // without a copy of each record: a conflict is looked for among very many keys
		if key.Status.Tokens[i].Hash == hash {
			return i
		}
	}
	return -1
}

// ClaimOf returns the record of the key's claim, or nil.
func ClaimOf(key *v1alpha1.APIKey) *v1alpha1.TokenRecord {
	if !IsClaimed(key) {
		return nil
	}
	if last := &key.Status.Tokens[len(key.Status.Tokens)-1]; isClaim(last) {
		return last
	}
	return nil
}

// isClaim reports whether the record is a claim. A claim that was superseded, because its token may have been handed over, has notAfter.
func isClaim(record *v1alpha1.TokenRecord) bool {
	return record.NotBefore == nil || (record.ClaimedAt != nil && record.NotAfter == nil)
}

// DropClaim removes the claim, unless it is accepted: then a client may have its token.
func DropClaim(key *v1alpha1.APIKey) {
	if claim := ClaimOf(key); claim != nil && claim.NotBefore == nil {
		removeClaim(key)
	}
}

func removeClaim(key *v1alpha1.APIKey) {
	key.Status.Tokens = slices.Clip(key.Status.Tokens[:len(key.Status.Tokens)-1])
	if len(key.Status.Tokens) == 0 {
		key.Status.Tokens = nil
	}
}

// HintOf returns the start of the newest token, or of the claimed one if no token was issued yet. It is empty if it is not known.
func HintOf(key *v1alpha1.APIKey) string {
	if newest := NewestToken(key); newest != nil {
		return newest.Hint
	}
	if claim := ClaimOf(key); claim != nil {
		return claim.Hint
	}
	return ""
}

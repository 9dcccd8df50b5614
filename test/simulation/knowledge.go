// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// knowledge is what an observer knows who sees every request, every token, and the true time.
type knowledge struct {
	tokens    []*knownToken
	byHash    map[string]*knownToken
	claims    map[claimID]*claim
	lastWrite time.Duration
	// ttls are those that a key declares or has declared, each with the time when it was last declared.
	ttls map[types.UID]map[time.Duration]time.Duration
	// ends are the times when the API server stored the end of a key.
	ends map[types.UID]time.Duration
	// acceptedAt is when the API server stored that a token is accepted.
	acceptedAt map[claimID]time.Duration
	// shortestOverlap is the shortest overlap that a key has ever declared.
	shortestOverlap map[types.UID]time.Duration
	// expectedEvents are the reasons of the events that a reconcile must record before its next request.
	expectedEvents map[*task]string
}

// knownToken is a token, whether or not a key has it.
type knownToken struct {
	label      string
	plaintext  string
	hash       string
	credential authn.Credential
	// handedOverAt is when the API server stored a Secret with it, or nil.
	handedOverAt *time.Duration
}

// claimID identifies a hash that a key claimed.
type claimID struct {
	key  types.UID
	hash string
}

// claim is a claim that the API server stored.
type claim struct {
	until time.Duration // the deadline of the reconcile that claimed
	by    sender
	// isFirst is true if the key had no token before.
	isFirst bool
}

func newKnowledge() knowledge {
	return knowledge{
		byHash: map[string]*knownToken{}, claims: map[claimID]*claim{}, ttls: map[types.UID]map[time.Duration]time.Duration{},
		ends: map[types.UID]time.Duration{}, expectedEvents: map[*task]string{},
		acceptedAt: map[claimID]time.Duration{}, shortestOverlap: map[types.UID]time.Duration{},
	}
}

// register returns the token, which gets a label when it is first seen.
func (k *knowledge) register(plaintext string) *knownToken {
	hash := token.Hash(plaintext)
	if known := k.byHash[hash]; known != nil {
		return known
	}
	known := &knownToken{
		label: fmt.Sprintf("t%d", len(k.tokens)+1), plaintext: plaintext, hash: hash, credential: authn.NewCredential(plaintext),
	}
	k.tokens = append(k.tokens, known)
	k.byHash[hash] = known
	return known
}

// registerMinted registers the token in a Secret that a controller writes.
func (k *knowledge) registerMinted(p *process, secret *corev1.Secret) {
	if p.isController {
		for _, plaintext := range secret.Data {
			k.register(string(plaintext))
		}
	}
}

// chooseImport chooses the token of an imported key: one of few that clients made, or one that was minted for another key.
func (s *simulation) chooseImport() *knownToken {
	if len(s.tokens) > 0 && s.chance(30) {
		return one(&s.choices, s.tokens...)
	}
	return s.register(one(&s.choices, "imported-token-1", "imported-token-2"))
}

// tokenIn returns the token in a Secret, or nil if it holds none that the simulation knows.
func (k *knowledge) tokenIn(secret *corev1.Secret) *knownToken {
	for _, data := range secret.Data {
		if known := k.byHash[token.Hash(string(data))]; known != nil {
			return known
		}
	}
	return nil
}

// nameOfSecret returns the name of a key's Secret.
func nameOfSecret(key *v1alpha1.APIKey) string {
	if key.Spec.Secret != nil && key.Spec.Secret.Name != "" {
		return key.Spec.Secret.Name
	}
	return key.Name + "-token"
}

// issuedRecords returns the records of tokens that were issued.
func issuedRecords(key *v1alpha1.APIKey) []v1alpha1.TokenRecord {
	var issued []v1alpha1.TokenRecord
	for _, record := range recordsOf(key) {
		if record.NotBefore != nil {
			issued = append(issued, record)
		}
	}
	return issued
}

func recordsOf(key *v1alpha1.APIKey) []v1alpha1.TokenRecord {
	if key == nil {
		return nil
	}
	return key.Status.Tokens
}

// recordOf returns the record of a hash, or nil.
func recordOf(key *v1alpha1.APIKey, hash string) *v1alpha1.TokenRecord {
	for i := range recordsOf(key) {
		if record := &key.Status.Tokens[i]; record.Hash == hash {
			return record
		}
	}
	return nil
}

// isEnded reports whether a key has ended, apart from its expiry: its owner or the controller ended it for good.
func isEnded(key *v1alpha1.APIKey) bool {
	return key.DeletionTimestamp != nil || key.Spec.Active != nil && !*key.Spec.Active || key.Status.DeactivatedAt != nil
}

// isExpired reports whether a key has expired at a time.
func isExpired(key *v1alpha1.APIKey, now time.Time) bool {
	return key.Spec.ExpiresAt != nil && !now.Before(key.Spec.ExpiresAt.Time)
}

// forgetAfterRestore drops what a restore of an older state makes wrong.
func (s *server) forgetAfterRestore() {
	for _, key := range s.keys {
		for _, record := range key.Status.Tokens {
			if record.NotBefore == nil {
				s.claims[claimID{key.UID, record.Hash}] = &claim{}
			}
		}
	}
}

// mayBeOf reports whether the Secret belongs to the key, or has lost its owner.
func mayBeOf(secret *corev1.Secret, key *v1alpha1.APIKey) bool {
	owner := metav1.GetControllerOf(secret)
	return owner == nil || owner.UID == key.UID
}

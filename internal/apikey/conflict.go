// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"fmt"
	"slices"

	"golang.org/x/text/unicode/norm"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// Conflict is the error that a key cannot be issued because of another object of its namespace.
type Conflict struct {
	// Reason is the reason of the key's conditions, such as v1alpha1.ReasonAppNameConflict.
	Reason string
	// Holder is the metadata.name of the other object, or empty if it is known only from the message.
	Holder string
	// Message describes the conflict, and what the owner of the key can do about it.
	Message string
}

// Error returns the message.
func (c *Conflict) Error() string { return c.Message }

// FindConflict returns the conflict with one of the others that prevents the key from being issued, or from getting the token hash that it
// declares, or nil. An issued key has its app name already. The others are APIKeys of the same namespace and may include the key itself.
// The controller issues no key that has a conflict. The admission webhook warns of the conflict earlier, when a client writes the key.
func FindConflict(key *v1alpha1.APIKey, others []v1alpha1.APIKey) *Conflict {
	if !IsIssued(key) {
		if holder := firstBefore(key, others, reservesAppNameOf(key), precedes); holder != nil {
			return NewAppNameConflict(key.Spec.AppName, holder)
		}
	}
	for _, hash := range missingHashesOf(key) {
		if holder := firstBefore(key, others, hasHash(hash), precedesForHash(hash)); holder != nil {
			return &Conflict{
				Reason:  v1alpha1.ReasonTokenHashConflict,
				Holder:  holder.Name,
				Message: fmt.Sprintf("APIKey %q already has this token hash: delete that key, or import another token.", holder.Name),
			}
		}
	}
	return nil
}

// NewAppNameConflict returns the conflict of a key with the holder of its app name.
func NewAppNameConflict(appName string, holder *v1alpha1.APIKey) *Conflict {
	return &Conflict{
		Reason: v1alpha1.ReasonAppNameConflict,
		Holder: holder.Name,
		Message: fmt.Sprintf("App name %q is held by APIKey %q: deactivate or delete that key, or create this one with another app name.",
			appName, holder.Name),
	}
}

// FindConflictingClaim returns one of the others that conflicts with the key and has claimed a token hash, or nil. While such a claim
// exists, the controller must not hand over the key's token: the other key may have been checked before this key's claim was visible.
func FindConflictingClaim(key *v1alpha1.APIKey, others []v1alpha1.APIKey) *v1alpha1.APIKey {
	for i := range others {
		other := &others[i]
		isNamesake := !IsIssued(key) && IsClaimed(other) && reservesAppNameOf(key)(other)
		hasClaimed := func(hash string) bool { return holdOf(other, hash) <= holdClaimed }
		if other.UID != key.UID && (isNamesake || slices.ContainsFunc(missingHashesOf(key), hasClaimed)) {
			return other
		}
	}
	return nil
}

// HashesOf returns the token hashes in the key's spec and status.
func HashesOf(key *v1alpha1.APIKey) []string {
	var hashes []string
	if key.Spec.TokenHash != "" {
		hashes = append(hashes, key.Spec.TokenHash)
	}
	for i := range key.Status.Tokens {
		if hash := key.Status.Tokens[i].Hash; !slices.Contains(hashes, hash) {
			hashes = append(hashes, hash)
		}
	}
	return hashes
}

// missingHashesOf returns the hashes in the key's spec and status that no other key may have before the key's token is accepted.
func missingHashesOf(key *v1alpha1.APIKey) []string {
	return slices.DeleteFunc(HashesOf(key), func(hash string) bool { return holdOf(key, hash) == holdAccepted })
}

// AwaitsToken reports whether the key is not issued, or declares a token hash that is not accepted yet.
func AwaitsToken(key *v1alpha1.APIKey) bool {
	return !IsIssued(key) || (key.Spec.TokenHash != "" && holdOf(key, key.Spec.TokenHash) != holdAccepted)
}

// IsRetired reports whether the key was deactivated or its end is recorded in the status. An expired key keeps its app name until the
// controller has recorded that it expired, because its owner may still change spec.expiresAt.
func IsRetired(key *v1alpha1.APIKey) bool {
	validity := ValidityOf(key)
	return validity.Deactivated || validity.Ended
}

// CanonicalAppName returns the form that app names are compared in (Unicode NFC). Names that users cannot distinguish, such as "Café"
// with a composed and with a decomposed é, have the same form.
func CanonicalAppName(name string) string { return norm.NFC.String(name) }

// FirstForName returns the first, by precedence, of the keys of one app name, or nil if none of them can be issued. [FindConflict] finds
// the same conflict of names with this key alone as with all of them.
func FirstForName(keys []v1alpha1.APIKey) *v1alpha1.APIKey {
	return firstWhere(keys, reservesAppName, precedes)
}

// FirstForHash returns the first, by precedence for the token hash, of the keys that have it, or nil. [FindConflict] finds the same
// conflict of hashes with this key alone as with all of them.
func FirstForHash(hash string, keys []v1alpha1.APIKey) *v1alpha1.APIKey {
	return firstWhere(keys, hasHash(hash), precedesForHash(hash))
}

// reservesAppNameOf returns a function that reports whether another key prevents this one from being issued for its app name.
func reservesAppNameOf(key *v1alpha1.APIKey) func(other *v1alpha1.APIKey) bool {
	return func(other *v1alpha1.APIKey) bool {
		return reservesAppName(other) && CanonicalAppName(key.Spec.AppName) == CanonicalAppName(other.Spec.AppName)
	}
}

// reservesAppName reports whether the key prevents later keys from being issued for its app name. A blocked key does so only if it has
// claimed a token hash. Two blocked keys may ignore each other: the one that claims later detects the other's claim.
func reservesAppName(key *v1alpha1.APIKey) bool {
	return !IsRetired(key) && (IsClaimed(key) || !IsBlocked(key))
}

// IsBlocked reports whether the key cannot be issued because of its Secret or its token hash. A key that waits for its app name, or until
// its owner corrects a field, is not blocked and keeps its precedence.
func IsBlocked(key *v1alpha1.APIKey) bool {
	stalled := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && stalled.Status == metav1.ConditionTrue &&
		slices.Contains([]string{v1alpha1.ReasonSecretConflict, v1alpha1.ReasonSecretRefused, v1alpha1.ReasonTokenHashConflict}, stalled.Reason)
}

// WaitsForHolder reports whether the controller has recorded that the key waits for another key, which holds its app name or hash. A new
// key waits before it is stalled.
func WaitsForHolder(key *v1alpha1.APIKey) bool {
	ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && IsOfHolder(ready.Reason)
}

// IsOfHolder reports whether the reason of a condition is a conflict with another key.
func IsOfHolder(reason string) bool {
	return reason == v1alpha1.ReasonAppNameConflict || reason == v1alpha1.ReasonTokenHashConflict
}

// The ways in which a key holds a token hash, by precedence. Retired keys count: a deactivated token must not become valid again under
// another name.
const (
	// holdAccepted is the hold of a key that has the hash on record as accepted, or whose records are unreadable.
	holdAccepted = iota
	// holdClaimed is the hold of a key that has claimed the hash.
	holdClaimed
	// holdDeclared is the hold of a key that imports the hash and has not claimed it yet.
	holdDeclared
	holdNone
)

// holdOf returns how the key holds the token hash.
func holdOf(key *v1alpha1.APIKey, hash string) int {
	isDeclared := key.Spec.TokenHash == hash
	record := RecordOf(key, hash)
	switch {
	case record != nil && record.NotBefore != nil, isDeclared && key.IsUnreadable("status.tokens"):
		return holdAccepted
	case record != nil:
		return holdClaimed
	case isDeclared:
		return holdDeclared
	default:
		return holdNone
	}
}

// hasHash returns a function that reports whether a key has the token hash in its spec or status.
func hasHash(hash string) func(*v1alpha1.APIKey) bool {
	return func(key *v1alpha1.APIKey) bool { return holdOf(key, hash) != holdNone }
}

// precedence is a total order of keys, so that every process determines the same first key. It reports whether key a precedes key b.
type precedence func(a, b *v1alpha1.APIKey) bool

// firstBefore returns the first, by precedence, of the others that match and precede the key, or nil.
func firstBefore(
	key *v1alpha1.APIKey, others []v1alpha1.APIKey, matches func(*v1alpha1.APIKey) bool, precedes precedence,
) *v1alpha1.APIKey {
	return firstWhere(others, func(other *v1alpha1.APIKey) bool {
		return other.UID != key.UID && matches(other) && precedes(other, key)
	}, precedes)
}

// firstWhere returns the first, by precedence, of the keys that match, or nil.
func firstWhere(keys []v1alpha1.APIKey, matches func(*v1alpha1.APIKey) bool, precedes precedence) *v1alpha1.APIKey {
	var first *v1alpha1.APIKey
	for i := range keys {
		if matches(&keys[i]) && (first == nil || precedes(&keys[i], first)) {
			first = &keys[i]
		}
	}
	return first
}

// MayBeIssued reports whether the key is issued, or has token records that are unreadable.
func MayBeIssued(key *v1alpha1.APIKey) bool {
	return IsIssued(key) || key.IsUnreadable("status.tokens")
}

// precedes is the precedence for an app name. Issued keys are first, then claimed ones, then the older ones, then those with the lower UID.
func precedes(a, b *v1alpha1.APIKey) bool {
	switch {
	case MayBeIssued(a) != MayBeIssued(b):
		return MayBeIssued(a)
	case IsClaimed(a) != IsClaimed(b):
		return IsClaimed(a)
	default:
		return isOlder(a, b)
	}
}

// precedesForHash returns the precedence for a token hash. The hash belongs to the key that has it on record as accepted, whatever the
// ages.
func precedesForHash(hash string) precedence {
	return func(a, b *v1alpha1.APIKey) bool {
		if holdA, holdB := holdOf(a, hash), holdOf(b, hash); holdA != holdB {
			return holdA < holdB
		}
		return isOlder(a, b)
	}
}

// isOlder reports whether key a is older than key b, or as old and has the lower UID.
func isOlder(a, b *v1alpha1.APIKey) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.UID < b.UID
}

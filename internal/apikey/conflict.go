// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/text/unicode/norm"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// Conflict is why a key cannot be issued: another key of its namespace holds what it needs.
type Conflict struct {
	// Reason is v1alpha1.ReasonAppNameConflict or v1alpha1.ReasonTokenHashConflict.
	Reason string
	// Holder is the metadata.name of the key that holds it; empty in a conflict that ConflictIn returned.
	Holder string
	// Message tells the owner of the key what to do.
	Message string
}

// Error returns the message: a conflict is the error of whoever asks for what somebody else holds.
func (c *Conflict) Error() string { return c.Message }

// Status returns the conflict as the API server tells it to whoever asked, if the admission webhook finds it.
func (c *Conflict) Status() metav1.Status {
	return metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusForbidden,
		Reason:  metav1.StatusReasonForbidden,
		Message: c.Message,
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseType(c.Reason), Message: c.Message}}},
	}
}

// ConflictIn returns the conflict that an error of the API server tells of, or nil.
func ConflictIn(err error) *Conflict {
	for _, reason := range []string{v1alpha1.ReasonAppNameConflict, v1alpha1.ReasonTokenHashConflict} {
		if cause, ok := apierrors.StatusCause(err, metav1.CauseType(reason)); ok {
			return &Conflict{Reason: reason, Message: cause.Message}
		}
	}
	return nil
}

// FindConflict returns why the key must stand back behind one of the others, or nil. The others are APIKeys of the same namespace;
// the key itself may be among them. The controller decides by it, and the admission webhook tells the user early.
func FindConflict(key *v1alpha1.APIKey, others []v1alpha1.APIKey) *Conflict {
	if holder := firstBefore(key, others, competeForName); holder != nil {
		return &Conflict{
			Reason: v1alpha1.ReasonAppNameConflict,
			Holder: holder.Name,
			Message: fmt.Sprintf("App name %q is held by APIKey %q: deactivate or delete that key, or create this one with another app name.",
				key.Spec.AppName, holder.Name),
		}
	}
	if holder := firstBefore(key, others, shareHash); holder != nil {
		return &Conflict{
			Reason: v1alpha1.ReasonTokenHashConflict,
			Holder: holder.Name,
			Message: fmt.Sprintf("The token hash is that of APIKey %q: delete that key, or bring another token.",
				holder.Name),
		}
	}
	return nil
}

// FindRivalClaim returns a key among the others that competes with this one and has claimed a token hash too, or nil. While there
// is one, neither may hand over its token: whoever claimed first may already have looked, and seen nobody.
func FindRivalClaim(key *v1alpha1.APIKey, others []v1alpha1.APIKey) *v1alpha1.APIKey {
	return firstWhere(others, func(other *v1alpha1.APIKey) bool {
		return IsClaimed(other) && (competeForName(key, other) || shareHash(key, other))
	})
}

// HashesOf returns the token hashes that the key declares or records.
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

// IsRetired reports whether the end of the key is on record. A key that has expired but whose end is not yet recorded still holds its
// name: until then its owner may move spec.expiresAt.
func IsRetired(key *v1alpha1.APIKey) bool {
	validity := ValidityOf(key)
	return validity.Deactivated || validity.Ended
}

// CanonicalAppName returns the form in which app names are compared (Unicode NFC). Two names that people cannot tell apart, such as "Café"
// with a composed and with a decomposed é, have the same one.
func CanonicalAppName(name string) string { return norm.NFC.String(name) }

// FirstForName returns the key that precedes all others of these keys, which have one app name: none of them is issued before it. It is nil
// when none can be issued. FindConflict finds the same conflict of name with it alone as with them all.
func FirstForName(keys []v1alpha1.APIKey) *v1alpha1.APIKey {
	return firstOf(keys, contendsForName)
}

// FirstForHash returns the key that precedes all others of these keys, which have a token hash in common. FindConflict finds the same
// conflict of hash with it alone as with them all.
func FirstForHash(keys []v1alpha1.APIKey) *v1alpha1.APIKey {
	return firstOf(keys, func(*v1alpha1.APIKey) bool { return true })
}

// competeForName is true for two keys of which only one may be active.
func competeForName(key, other *v1alpha1.APIKey) bool {
	return key.UID != other.UID && contendsForName(other) &&
		CanonicalAppName(key.Spec.AppName) == CanonicalAppName(other.Spec.AppName)
}

// contendsForName says whether the key keeps others from having its app name. One that cannot be issued does not, unless it has claimed a
// token hash: of two keys that pass each other over, the one that claims later sees the other's claim.
func contendsForName(key *v1alpha1.APIKey) bool {
	return !IsRetired(key) && (IsClaimed(key) || !IsBlocked(key))
}

// IsBlocked reports whether the key cannot be issued because of its Secret or its hash. A key that waits for its app name, or for its
// owner to correct a field, keeps its place.
func IsBlocked(key *v1alpha1.APIKey) bool {
	stalled := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && stalled.Status == metav1.ConditionTrue &&
		slices.Contains([]string{v1alpha1.ReasonSecretConflict, v1alpha1.ReasonSecretRefused, v1alpha1.ReasonTokenHashConflict}, stalled.Reason)
}

// shareHash is true also when the other key has ended: a deactivated token must not come back under another name.
func shareHash(key, other *v1alpha1.APIKey) bool {
	return key.UID != other.UID && slices.ContainsFunc(HashesOf(key), func(hash string) bool {
		return slices.Contains(HashesOf(other), hash)
	})
}

// firstBefore returns the first, by precedence, of the others that are related to the key and precede it.
func firstBefore(key *v1alpha1.APIKey, others []v1alpha1.APIKey, related func(key, other *v1alpha1.APIKey) bool) *v1alpha1.APIKey {
	var first *v1alpha1.APIKey
	for i := range others {
		other := &others[i]
		if related(key, other) && precedes(other, key) && (first == nil || precedes(other, first)) {
			first = other
		}
	}
	return first
}

func firstOf(keys []v1alpha1.APIKey, where func(*v1alpha1.APIKey) bool) *v1alpha1.APIKey {
	var first *v1alpha1.APIKey
	for i := range keys {
		if where(&keys[i]) && (first == nil || precedes(&keys[i], first)) {
			first = &keys[i]
		}
	}
	return first
}

func firstWhere(keys []v1alpha1.APIKey, where func(*v1alpha1.APIKey) bool) *v1alpha1.APIKey {
	for i := range keys {
		if where(&keys[i]) {
			return &keys[i]
		}
	}
	return nil
}

// mayBeIssued says whether the key is issued, also when what is recorded of its tokens cannot be read.
func mayBeIssued(key *v1alpha1.APIKey) bool { return IsIssued(key) || key.IsUnreadable("status.tokens") }

// precedes orders keys that compete: an issued one first, then one whose hash is claimed, then the older, then by UID. It is total,
// so that everybody who looks at the same keys names the same holder.
func precedes(a, b *v1alpha1.APIKey) bool {
	switch {
	case mayBeIssued(a) != mayBeIssued(b):
		return mayBeIssued(a)
	case IsClaimed(a) != IsClaimed(b):
		return IsClaimed(a)
	case !a.CreationTimestamp.Equal(&b.CreationTimestamp):
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	default:
		return a.UID < b.UID
	}
}

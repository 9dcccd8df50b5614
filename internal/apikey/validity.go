// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"math"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// State says whether a key is active. It says nothing of its token: an active key is accepted once it is issued.
type State string

// The states of a key. StateDeactivated and StateExpired are final.
const (
	StateActive      State = "Active"
	StateDeactivated State = "Deactivated"
	StateExpired     State = "Expired"
	// StateUnreadable is that of a key whose end may be declared or on record, in a field that cannot be read. It is not accepted.
	StateUnreadable State = "Unreadable"
)

// NeverExpires is the Validity.ExpiresAt of a key without spec.expiresAt.
const NeverExpires = math.MaxInt64

// Validity is all that decides whether a key is active. It is a value of its own so that an authenticator can keep it without the
// object.
type Validity struct {
	// Deactivated is true when the owner wants the key no more: spec.active is false, or the object is being deleted.
	Deactivated bool
	// Ended is true when the status records the end of the key.
	Ended bool
	// Unreadable is true when a field that decides cannot be read. ExpiresAt has passed then, for those who only look at that.
	Unreadable bool
	// ExpiresAt is the instant from which the key is expired, in seconds since 1970; NeverExpires is no such instant.
	ExpiresAt int64
}

// State is the one rule that says whether a key is active at the instant now.
func (v Validity) State(now time.Time) State {
	switch {
	case v.Deactivated:
		return StateDeactivated
	case v.Ended:
		return StateExpired
	case v.Unreadable:
		return StateUnreadable
	case now.Unix() >= v.ExpiresAt:
		return StateExpired
	default:
		return StateActive
	}
}

// ValidityOf returns what decides whether the key is active.
func ValidityOf(key *v1alpha1.APIKey) Validity {
	v := Validity{
		Deactivated: key.DeletionTimestamp != nil || (key.Spec.Active != nil && !*key.Spec.Active),
		Ended:       key.Status.DeactivatedAt != nil,
		ExpiresAt:   NeverExpires,
	}
	if key.Spec.ExpiresAt != nil {
		v.ExpiresAt = key.Spec.ExpiresAt.Unix()
	}
	if key.IsUnreadable("metadata.deletionTimestamp", "spec.active", "spec.expiresAt", "status.deactivatedAt") {
		v.Unreadable, v.ExpiresAt = true, 0
	}
	return v
}

// StateOf says whether the key is active at the instant now.
func StateOf(key *v1alpha1.APIKey, now time.Time) State {
	return ValidityOf(key).State(now)
}

// IsIssued says whether the key's newest token was settled and handed over.
func IsIssued(key *v1alpha1.APIKey) bool {
	return IsClaimed(key) && key.Status.Tokens[0].NotBefore != nil
}

// IsClaimed says whether a token hash is recorded for the key, handed over or not.
func IsClaimed(key *v1alpha1.APIKey) bool {
	return len(key.Status.Tokens) > 0
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"math"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// State is the state of a key. Authenticators accept a key that is active and issued.
type State string

// The states of a key.
const (
	StateActive      State = "Active"
	StateDeactivated State = "Deactivated"
	StateExpired     State = "Expired"
	// StateUnreadable is the state of a key that may have ended, because a field of its validity is unreadable. It is not accepted.
	StateUnreadable State = "Unreadable"
)

// NeverExpires is the [Validity] ExpiresAt of a key without spec.expiresAt.
const NeverExpires = math.MaxInt64

// Validity holds what determines the state of a key. Authenticators store it without the APIKey.
type Validity struct {
	// Deactivated is true if spec.active is false or the APIKey is being deleted.
	Deactivated bool
	// Ended is true if the status records that the key was deactivated or has expired.
	Ended bool
	// Unreadable is true if one of these fields is unreadable. ExpiresAt is then 0, which is in the past.
	Unreadable bool
	// ExpiresAt is the time at which the key expires, in seconds since 1970, or NeverExpires.
	ExpiresAt int64
}

// State returns the state of the key at the time now.
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

// ValidityOf returns the validity of the key.
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

// StateOf returns the state of the key at the time now.
func StateOf(key *v1alpha1.APIKey, now time.Time) State {
	return ValidityOf(key).State(now)
}

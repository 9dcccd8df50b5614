// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// State says whether a key is active. It says nothing of its token: an active key is accepted once it is issued.
type State string

// The states of a key. All but StateActive are final.
const (
	StateActive      State = "Active"
	StateDeactivated State = "Deactivated"
	StateExpired     State = "Expired"
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
	// ExpiresAt is the instant from which the key is expired, in seconds since 1970; NeverExpires is no such instant.
	ExpiresAt int64
}

// State is the one rule that says whether a key is active at the instant now.
func (v Validity) State(now time.Time) State {
	switch {
	case v.Deactivated:
		return StateDeactivated
	case v.Ended, now.Unix() >= v.ExpiresAt:
		return StateExpired
	default:
		return StateActive
	}
}

// Validity returns what decides whether the key is active.
func (k *APIKey) Validity() Validity {
	return NewValidity(&k.Spec, &k.Status, k.DeletionTimestamp)
}

// NewValidity returns what decides whether a key of this spec, status and deletion time is active.
func NewValidity(spec *APIKeySpec, status *APIKeyStatus, deletedAt *metav1.Time) Validity {
	v := Validity{
		Deactivated: deletedAt != nil || (spec.Active != nil && !*spec.Active),
		Ended:       status.DeactivatedAt != nil,
		ExpiresAt:   NeverExpires,
	}
	if spec.ExpiresAt != nil {
		v.ExpiresAt = spec.ExpiresAt.Unix()
	}
	return v
}

// State says whether the key is active at the instant now.
func (k *APIKey) State(now time.Time) State {
	return k.Validity().State(now)
}

// Issued says whether the key's newest token was settled and handed over.
func (k *APIKey) Issued() bool {
	return k.Claimed() && k.Status.Tokens[0].NotBefore != nil
}

// Claimed says whether a token hash is recorded for the key, handed over or not.
func (k *APIKey) Claimed() bool {
	return len(k.Status.Tokens) > 0
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"math"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// never is a duration that does not end.
const never = time.Duration(math.MaxInt64)

// clockDelay is the delay before the controller checks its clock again, after it could not trust it.
const clockDelay = 15 * time.Second

// isClockTrusted reports whether the clock allows an irreversible change that is due. If not, it records an event with the reason.
func (r *APIKeyReconciler) isClockTrusted(ctx context.Context, key *v1alpha1.APIKey, action string) bool {
	err := r.CheckClock(ctx)
	if err != nil {
		r.recordClockWarning(key, action, err)
	}
	return err == nil
}

// untilNextDeadline returns the time until an issued key expires or its Secret is due for deletion, as a RequeueAfter.
func (r *APIKeyReconciler) untilNextDeadline(key *v1alpha1.APIKey) time.Duration {
	untilSecretIsDue := never
	if due, ok := secretDeadline(key); ok {
		untilSecretIsDue = due.Sub(r.Now())
	}
	return soonest(r.untilExpiry(key), untilSecretIsDue)
}

func (r *APIKeyReconciler) untilExpiry(key *v1alpha1.APIKey) time.Duration {
	if key.Spec.ExpiresAt == nil {
		return never
	}
	return key.Spec.ExpiresAt.Sub(r.Now())
}

// untilClaimIsVoid returns how long the process that claimed for the key may still hand over its token; 0 or less means that the claim is
// void. A claim that is further in the future than clocks may differ has the time of a wrong clock, and is void.
func (r *APIKeyReconciler) untilClaimIsVoid(key *v1alpha1.APIKey) time.Duration {
	if !hasClaimTime(key) {
		return 0
	}
	remaining := apikey.ClaimOf(key).ClaimedAt.Add(claimLifetime).Sub(r.Now())
	if remaining > claimLifetime+clockDifference {
		return 0
	}
	return remaining
}

// hasClaimTime reports whether the key has a claim that becomes void only after claimLifetime.
func hasClaimTime(key *v1alpha1.APIKey) bool {
	claim := apikey.ClaimOf(key)
	return claim != nil && claim.ClaimedAt != nil
}

// soonest returns the shortest duration as a RequeueAfter, which is 0 if all of them are never.
func soonest(durations ...time.Duration) time.Duration {
	shortest := never
	for _, duration := range durations {
		shortest = min(shortest, duration)
	}
	if shortest == never {
		return 0
	}
	return max(shortest, time.Millisecond)
}

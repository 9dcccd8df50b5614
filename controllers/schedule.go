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

// clockDelay passes before the controller tries again to do what the clock demands, after that clock could not be trusted.
const clockDelay = 15 * time.Second

// mayGoByClock says whether something may be done to the key that cannot be undone because its time has come. If not, the key has an
// event that says why.
func (r *APIKeyReconciler) mayGoByClock(ctx context.Context, key *v1alpha1.APIKey, action string) bool {
	err := r.CheckClock(ctx)
	if err != nil {
		r.recordClockWarning(key, action, err)
	}
	return err == nil
}

// untilNextInstant is how long nothing happens to an issued key by itself: until it expires, or its Secret's time is over.
func (r *APIKeyReconciler) untilNextInstant(key *v1alpha1.APIKey) time.Duration {
	untilSecretIsDue := never
	if due, ok := secretDue(key); ok {
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

// untilClaimIsVoid is how long whoever claimed for the key may still be handing over its token; 0 or less when nobody is. A claim from
// further ahead than clocks may differ by was dated by a clock that was wrong, and is void.
func (r *APIKeyReconciler) untilClaimIsVoid(key *v1alpha1.APIKey) time.Duration {
	if !isDated(key) {
		return 0
	}
	remaining := key.Status.Tokens[0].ClaimedAt.Add(claimLifetime).Sub(r.Now())
	if remaining > claimLifetime+clockDifference {
		return 0
	}
	return remaining
}

// isDated says whether the key has a claim that is void only after a while.
func isDated(key *v1alpha1.APIKey) bool {
	return apikey.IsClaimed(key) && key.Status.Tokens[0].ClaimedAt != nil
}

// soonest returns the shortest of the durations as a RequeueAfter, where 0 means that there is nothing to wait for.
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

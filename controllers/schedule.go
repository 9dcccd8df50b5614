// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// untilNextDeadline returns, as a RequeueAfter, the time until the next deadline of an issued key. The deadlines are its expiry and the
// warnings of that, the deletion of its Secret, the end of a superseded token, and a rotation. Those in the past do not count.
func (r *APIKeyReconciler) untilNextDeadline(key *v1alpha1.APIKey) time.Duration {
	wait := soonest(r.untilExpiry(key), r.untilWarning(key))
	if due, ok := secretDeadline(key); ok {
		wait = earliest(wait, max(0, due.Sub(r.Now())))
	}
	for _, deadline := range []*metav1.Time{apikey.NextEnd(key), apikey.NextRotation(key)} {
		if deadline != nil {
			wait = earliest(wait, max(0, deadline.Sub(r.Now())))
		}
	}
	return wait
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

// earliest returns the shortest of the RequeueAfters. A RequeueAfter of 0 means none.
func earliest(delays ...time.Duration) time.Duration {
	shortest := never
	for _, delay := range delays {
		if delay > 0 {
			shortest = min(shortest, delay)
		}
	}
	return soonest(shortest)
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

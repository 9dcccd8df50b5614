// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

const day = 24 * time.Hour

// expiryLeads are the times before spec.expiresAt at which a warning becomes due. They differ by more than maxWarningDelay, so that at most
// one is due at any time.
var expiryLeads = []time.Duration{7 * day, day}

const (
	// maxWarningDelay is how late a warning may be. So a controller that was down for less than a day still warns. The price is a second
	// event if a controller restarts within that time, after the API server has deleted the first one.
	maxWarningDelay = day

	// minWarningAge is the minimum age of a key at a warning. The owner of a key that was created with 7 days to live chose that time.
	minWarningAge = time.Hour
)

// dueExpiryWarnings returns the event ExpiresSoon of a key that expires soon.
func dueExpiryWarnings(key *v1alpha1.APIKey, now time.Time) []warning {
	if key.Spec.ExpiresAt == nil || !apikey.IsIssued(key) || apikey.StateOf(key, now) != apikey.StateActive {
		return nil
	}
	for _, lead := range expiryLeads {
		due := key.Spec.ExpiresAt.Add(-lead)
		if late := now.Sub(due); late >= 0 && late < maxWarningDelay && due.Sub(key.CreationTimestamp.Time) >= minWarningAge {
			return []warning{{
				name:   fmt.Sprintf("expires-soon-%s-%d-%s", key.UID, key.Spec.ExpiresAt.Unix(), lead),
				reason: "ExpiresSoon",
				action: actionEnd,
				note: fmt.Sprintf("The key of the app %q expires at %s: to keep it, set a later spec.expiresAt. "+
					"Otherwise give its clients the token of another key before then.",
					shorten(key.Spec.AppName, maxNotedAppName), key.Spec.ExpiresAt.UTC().Format(time.RFC3339)),
			}}
		}
	}
	return nil
}

func (r *APIKeyReconciler) untilExpiryWarning(key *v1alpha1.APIKey) time.Duration {
	next, expiry := never, r.untilExpiry(key)
	for _, lead := range expiryLeads {
		if wait := expiry - lead; wait > 0 && expiry != never {
			next = min(next, wait)
		}
	}
	return next
}

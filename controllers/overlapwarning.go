// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

const (
	// overlapLead is the time before the end of a superseded token at which a warning becomes due.
	overlapLead = time.Hour

	// switchTime is the time after a rotation within which clients switch to the new token: a kubelet updates a mounted Secret within minutes,
	// and most tools that copy Secrets within an hour. Uses of the former token within this time cause no warning.
	switchTime = time.Hour
)

// dueOverlapWarnings returns the event SupersededTokenInUse of each superseded token that ends soon and that clients still use.
func dueOverlapWarnings(key *v1alpha1.APIKey, now time.Time) (due []warning) {
	if apikey.StateOf(key, now) != apikey.StateActive {
		return nil
	}
	for i := 1; i < len(key.Status.Tokens); i++ {
		record := &key.Status.Tokens[i]
		if record.NotAfter == nil || now.Before(record.NotAfter.Add(-overlapLead)) || apikey.HasEnded(record, now) || !isStillUsed(key, record) {
			continue
		}
		due = append(due, warning{
			name:   fmt.Sprintf("superseded-token-in-use-%s-%s-%d", key.UID, record.Hash[len(record.Hash)-8:], record.NotAfter.Unix()),
			reason: "SupersededTokenInUse",
			action: actionRotate,
			note: fmt.Sprintf("A superseded token of the app %q, with the hint %q, was still used at %s, and is refused from %s on: "+
				"give its clients the new token before then.", shorten(key.Spec.AppName, maxNotedAppName), record.Hint,
				record.LastUsedAt.UTC().Format(time.RFC3339), record.NotAfter.UTC().Format(time.RFC3339)),
		})
	}
	return due
}

// isStillUsed reports whether a superseded token was used after clients had the time to switch. If the overlap is short, they have half of
// it.
func isStillUsed(key *v1alpha1.APIKey, superseded *v1alpha1.TokenRecord) bool {
	since := apikey.SuccessorOf(key, superseded).NotBefore.Time
	overlap := superseded.NotAfter.Sub(since)
	return superseded.LastUsedAt != nil && superseded.LastUsedAt.After(since.Add(min(switchTime, overlap/2)))
}

func (r *APIKeyReconciler) untilOverlapWarning(key *v1alpha1.APIKey) time.Duration {
	next := never
	for i := range key.Status.Tokens {
		if end := key.Status.Tokens[i].NotAfter; end != nil {
			if wait := end.Add(-overlapLead).Sub(r.Now()); wait > 0 {
				next = min(next, wait)
			}
		}
	}
	return next
}

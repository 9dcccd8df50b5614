// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// IsActive reports whether authenticators accept the key at the instant now.
func IsActive(key *v1alpha1.APIKey, now time.Time) bool {
	return apikey.IsIssued(key) && apikey.StateOf(key, now) == apikey.StateActive
}

// UpdatedAt returns when the key was last created, changed by a client, or ended. It ignores other changes of the status. It needs the
// managed fields of the object.
func UpdatedAt(key *v1alpha1.APIKey) time.Time {
	updated := key.CreationTimestamp.Time
	for _, entry := range key.ManagedFields {
		if entry.Subresource == "" && entry.Time != nil && entry.Time.After(updated) {
			updated = entry.Time.Time
		}
	}
	if ended := key.Status.DeactivatedAt; ended != nil && ended.After(updated) {
		updated = ended.Time
	}
	return updated
}

// IsImported reports whether a user has declared the hash of a token that exists elsewhere. [Create] declares the hash of a token that it
// mints, and marks the key.
func IsImported(key *v1alpha1.APIKey) bool {
	_, created := key.Annotations[annotationCreatedAt]
	return key.Spec.TokenHash != "" && !created
}

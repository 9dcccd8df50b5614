// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// LastUseResolution is how much later than the use on record a token must be used until that use is recorded. A key that is always in use
// therefore costs one write a day, and its last use may be this much later than its record.
const LastUseResolution = 24 * time.Hour

// LastUsed returns the last use on record of any token of the key, or nil if no use is on record. The record of a superseded token is
// dropped with the token.
func LastUsed(key *v1alpha1.APIKey) *metav1.Time {
	var last *metav1.Time
	for i := range key.Status.Tokens {
		if used := key.Status.Tokens[i].LastUsedAt; used != nil && (last == nil || last.Before(used)) {
			last = used
		}
	}
	return last
}

// UnusedSince returns when the newest token of the key was issued, or the last use on record if that is later. It is nil if the key is not
// issued. The creation of the key does not count, because after a rotation the last use is not on record any more.
func UnusedSince(key *v1alpha1.APIKey) *metav1.Time {
	newest, used := NewestToken(key), LastUsed(key)
	if newest == nil {
		return nil
	}
	if used != nil && newest.NotBefore.Before(used) {
		return used
	}
	return newest.NotBefore
}

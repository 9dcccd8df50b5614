// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

const (
	// MaxTokens is the maximum number of token records of a key, as in the schema of status.tokens.
	MaxTokens = 5

	// DefaultOverlap is how long a superseded token stays accepted if spec.rotation.overlap is absent.
	DefaultOverlap = 24 * time.Hour

	// minClaimOverlap is the minimum time for which the token of a superseded claim stays accepted. A client that has read it from the Secret
	// reads the newer one within this time.
	minClaimOverlap = time.Hour
)

// IsRotationPending reports whether the key is issued, and is being rotated or must be rotated now.
func IsRotationPending(key *v1alpha1.APIKey, now time.Time) bool {
	switch {
	case !IsIssued(key):
		return false
	case key.Spec.TokenHash != "":
		return ClaimOf(key) != nil || NewestToken(key).Hash != key.Spec.TokenHash
	default:
		next := NextRotation(key)
		return ClaimOf(key) != nil || (next != nil && !now.Before(next.Time))
	}
}

// NextRotation returns when the next rotation of a minted token is due, or nil if none is declared.
func NextRotation(key *v1alpha1.APIKey) *metav1.Time {
	if !IsIssued(key) || key.Spec.TokenHash != "" || key.Spec.Rotation == nil {
		return nil
	}
	var next *metav1.Time
	if interval := key.Spec.Rotation.Interval; interval != nil {
		next = new(metav1.NewTime(NewestToken(key).NotBefore.Add(interval.Duration).Truncate(time.Second)))
	}
	if requested := requestedRotation(key); requested != nil && (next == nil || requested.Before(next)) {
		next = requested
	}
	return next
}

// DueRequest returns the request for a rotation that is due and not handled yet, or nil.
func DueRequest(key *v1alpha1.APIKey, now time.Time) *v1alpha1.RotationRequest {
	if requested := requestedRotation(key); requested == nil || now.Before(requested.Time) {
		return nil
	}
	return key.Spec.Rotation.Request
}

// HandleRequest records a request for a rotation as handled, if one is due. Without a request, the first rotation records the second before
// it, so that rotationHandled is absent only if no token was rotated, or if an earlier version has removed it.
func HandleRequest(key *v1alpha1.APIKey, now time.Time) {
	switch {
	case DueRequest(key, now) != nil:
		key.Status.RotationHandled = requestedRotation(key)
	case IsIssued(key) && key.Status.RotationHandled == nil:
		key.Status.RotationHandled = new(metav1.NewTime(now.Add(-time.Second).Truncate(time.Second)))
	}
}

// requestedRotation returns the time of the request for a rotation in whole seconds, or nil if it was handled. An earlier version of the
// controller removes rotationHandled when it writes the status. Without it, a request that is older than the newest token was handled.
func requestedRotation(key *v1alpha1.APIKey) *metav1.Time {
	if key.Spec.Rotation == nil || key.Spec.Rotation.Request == nil {
		return nil
	}
	at := metav1.NewTime(key.Spec.Rotation.Request.At.Truncate(time.Second))
	handled, newest := key.Status.RotationHandled, NewestToken(key)
	switch {
	case handled != nil && !handled.Before(&at):
		return nil
	case handled == nil && newest != nil && at.Before(newest.NotBefore):
		return nil
	default:
		return &at
	}
}

// HasRoomForClaim reports whether the claim of another token can be recorded at the time now. A rotation with an overlap of 0 has room at
// any time: it ends all former tokens, and [Claim] drops one of them some seconds earlier.
func HasRoomForClaim(key *v1alpha1.APIKey, now time.Time) bool {
	records := len(key.Status.Tokens)
	if claim := ClaimOf(key); claim != nil && claim.NotBefore == nil {
		records-- // it will be replaced
	}
	return records < MaxTokens || nextOverlap(key, now) == 0
}

// nextOverlap returns the overlap of the rotation that is due or not finished.
func nextOverlap(key *v1alpha1.APIKey, now time.Time) time.Duration {
	var next v1alpha1.TokenRecord
	if claim := ClaimOf(key); claim != nil {
		next.Overlap = claim.Overlap
	}
	if request := DueRequest(key, now); request != nil && request.Overlap != nil {
		next.Overlap = request.Overlap
	}
	return overlapBy(&next, key)
}

// Claim records the claim of another token. It drops an earlier claim. If that is accepted, a client may have its token: then it becomes a
// superseded token, and the new claim gets its overlap unless it has one. With an overlap of 0, a full list loses a superseded token.
func Claim(key *v1alpha1.APIKey, record v1alpha1.TokenRecord, now metav1.Time) {
	DropClaim(key)
	if former := ClaimOf(key); former != nil {
		if record.Overlap == nil {
			record.Overlap = former.Overlap
		}
		superseded := *former
		superseded.NotBefore, superseded.Overlap = &now, nil
		superseded.NotAfter = endOf(&superseded, max(overlapBy(former, key), minClaimOverlap))
		removeClaim(key)
		key.Status.Tokens = slices.Insert(key.Status.Tokens, min(1, len(key.Status.Tokens)), superseded) // behind the newest token
	}
	if len(key.Status.Tokens) == MaxTokens && overlapBy(&record, key) == 0 {
		dropSuperseded(key)
	}
	key.Status.Tokens = append(key.Status.Tokens, record)
}

// dropSuperseded drops the superseded token that ends first. A superseded claim is the last choice: a client may have read its token just
// now, and the Secret may hold it.
func dropSuperseded(key *v1alpha1.APIKey) {
	first := -1
	for i := range key.Status.Tokens {
		if key.Status.Tokens[i].NotAfter != nil && (first < 0 || isDroppedBefore(&key.Status.Tokens[i], &key.Status.Tokens[first])) {
			first = i
		}
	}
	if first >= 0 {
		key.Status.Tokens = slices.Delete(slices.Clone(key.Status.Tokens), first, first+1)
	}
}

func isDroppedBefore(a, b *v1alpha1.TokenRecord) bool {
	if isClaimA, isClaimB := a.ClaimedAt != nil, b.ClaimedAt != nil; isClaimA != isClaimB {
		return isClaimB
	}
	return a.NotAfter.Before(b.NotAfter)
}

// RemoveClaim removes the claim. If it is accepted, its token must not have been handed over.
func RemoveClaim(key *v1alpha1.APIKey) {
	if ClaimOf(key) != nil {
		removeClaim(key)
	}
}

// FinishClaim makes the claimed token the newest one. The former newest token stays accepted for the overlap.
func FinishClaim(key *v1alpha1.APIKey, now metav1.Time) {
	moveToFront(key, len(key.Status.Tokens)-1, now)
}

// RestoreToken makes the superseded token of the hash the newest one again, and drops a claim. It reports whether the key has such a token.
func RestoreToken(key *v1alpha1.APIKey, hash string, now metav1.Time) bool {
	if holdOf(key, hash) != holdAccepted {
		return false
	}
	DropClaim(key)
	at := indexOf(key, hash)
	if at < 0 { // the records are unreadable
		return false
	}
	moveToFront(key, at, now)
	return true
}

// moveToFront makes the token of a record the newest one, and supersedes the others. A token is superseded at the notBefore of the next
// newer one. An overlap of 0 ends all of them.
func moveToFront(key *v1alpha1.APIKey, at int, now metav1.Time) {
	newest := key.Status.Tokens[at]
	newest.NotBefore, newest.NotAfter, newest.ClaimedAt = &now, nil, nil
	overlap := overlapBy(&newest, key)
	superseded := slices.Delete(slices.Clone(key.Status.Tokens), at, at+1)
	for i := range superseded {
		record := &superseded[i]
		if end := endOf(&newest, overlap); record.NotAfter == nil || (overlap == 0 && end.Before(record.NotAfter)) {
			record.NotAfter = end
		}
	}
	key.Status.Tokens = append([]v1alpha1.TokenRecord{newest}, superseded...)
}

// SuccessorOf returns the record of the next newer token of a superseded one, which is a record of the key. It may not be the one that
// superseded the token, because that may have ended first.
func SuccessorOf(key *v1alpha1.APIKey, superseded *v1alpha1.TokenRecord) *v1alpha1.TokenRecord {
	successor := NewestToken(key)
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		if record == superseded {
			break
		}
		if record.NotBefore != nil && record.ClaimedAt == nil { // a claim supersedes no token
			successor = record
		}
	}
	return successor
}

// ShortenOverlaps lets superseded tokens end earlier if the overlap was shortened since. They do not end later if it was extended. The
// overlap of a token's successor counts only if it is longer than the key's, because another one may have superseded the token.
func ShortenOverlaps(key *v1alpha1.APIKey, now metav1.Time) {
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		if record.NotAfter == nil {
			continue
		}
		var end *metav1.Time
		if record.ClaimedAt != nil { // a superseded claim
			end = endOf(record, max(overlapBy(record, key), minClaimOverlap))
		} else {
			successor := SuccessorOf(key, record)
			end = endOf(successor, max(overlapBy(successor, key), OverlapOf(key)))
		}
		if end.Before(&now) {
			end = &now // it was accepted until now
		}
		if end.Before(record.NotAfter) {
			record.NotAfter = end
		}
	}
}

// overlapBy returns how long the tokens that this one supersedes stay accepted.
func overlapBy(record *v1alpha1.TokenRecord, key *v1alpha1.APIKey) time.Duration {
	if record.Overlap != nil {
		return record.Overlap.Duration
	}
	return OverlapOf(key)
}

// OverlapOf returns how long superseded tokens of the key stay accepted, unless the request for a rotation has another overlap.
func OverlapOf(key *v1alpha1.APIKey) time.Duration {
	if key.Spec.Rotation != nil && key.Spec.Rotation.Overlap != nil {
		return key.Spec.Rotation.Overlap.Duration
	}
	return DefaultOverlap
}

// endOf returns the time, in whole seconds, at which the overlap ends that began when the record was issued.
func endOf(record *v1alpha1.TokenRecord, overlap time.Duration) *metav1.Time {
	return new(metav1.NewTime(record.NotBefore.Add(overlap).Truncate(time.Second)))
}

// NextEnd returns when the first of the superseded tokens ends, or nil if the key has none.
func NextEnd(key *v1alpha1.APIKey) *metav1.Time {
	var next *metav1.Time
	for i := range key.Status.Tokens {
		if end := key.Status.Tokens[i].NotAfter; end != nil && (next == nil || end.Before(next)) {
			next = end
		}
	}
	return next
}

// DropEnded drops the records of the tokens that have ended.
func DropEnded(key *v1alpha1.APIKey, now time.Time) {
	key.Status.Tokens = slices.DeleteFunc(slices.Clone(key.Status.Tokens), func(record v1alpha1.TokenRecord) bool {
		return HasEnded(&record, now)
	})
}

// HasEnded reports whether the token of a record was superseded and has ended at the time now.
func HasEnded(record *v1alpha1.TokenRecord, now time.Time) bool {
	return record.NotAfter != nil && !now.Before(record.NotAfter.Time)
}

// SupersededUntil returns the time until which the token of the hash stays accepted that the newest token superseded. It is nil if the
// rotation ended the token at once, or if the token is not on record.
func SupersededUntil(key *v1alpha1.APIKey, hash string) *metav1.Time {
	record := RecordOf(key, hash)
	if record == nil || record.NotAfter == nil || !NewestToken(key).NotBefore.Before(record.NotAfter) {
		return nil
	}
	return record.NotAfter
}

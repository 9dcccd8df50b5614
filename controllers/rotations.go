// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// rotations holds what this process knows about rotations that are not finished.
type rotations struct {
	mu        sync.Mutex
	handovers map[client.ObjectKey]handover
	dueSince  map[client.ObjectKey]time.Time
}

// handover is a token that this process has minted and claimed for a rotation.
type handover struct {
	hash   string
	secret *corev1.Secret // has the token; nil if it was handed over or refused
	// former is the status before the claim.
	former *v1alpha1.APIKeyStatus
	// due is the time at which the token may be handed over. Until end, no other process replaces the claim. To hand over later, the process
	// renews the claim first.
	due, end time.Time

	// failure is the error of the last write of the Secret, or nil.
	failure error
	// mayBeWritten is true if a write of the Secret returned an error, and may have had an effect.
	mayBeWritten bool
}

// isEnded reports whether the token was handed over or refused. The result must still be recorded in the status.
func (h *handover) isEnded() bool { return h.secret == nil }

// isShort reports whether too little time remains for the handover. Its claim took long to write, or it waited long for a worker, or it
// failed before.
func (h *handover) isShort(now time.Time) bool {
	begin := h.due
	if now.After(begin) {
		begin = now
	}
	return !h.isEnded() && h.end.Sub(begin) < minHandoverTime
}

// schedule adds the handover of the key's claim.
func (r *rotations) schedule(key *v1alpha1.APIKey, scheduled handover) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.handovers == nil {
		r.handovers = map[client.ObjectKey]handover{}
	}
	r.handovers[client.ObjectKeyFromObject(key)] = scheduled
}

// handoverOf returns the handover of the key's claim, if this process wrote the claim.
func (r *rotations) handoverOf(key *v1alpha1.APIKey) (handover, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	scheduled, ok := r.handovers[client.ObjectKeyFromObject(key)]
	claim := apikey.ClaimOf(key)
	if !ok || claim == nil || claim.Hash != scheduled.hash {
		return handover{}, false
	}
	return scheduled, true
}

// untilHandover returns the time until the handover of the key's claim is due, or until the claim must be renewed, or never.
func (r *rotations) untilHandover(key *v1alpha1.APIKey, now time.Time) time.Duration {
	scheduled, ok := r.handoverOf(key)
	if !ok {
		return never
	}
	if scheduled.isShort(now) {
		return 0
	}
	return scheduled.due.Sub(now)
}

// record records the result of a write of the key's Secret in its handover, and returns that. It deletes the token if no further attempt
// follows.
func (r *rotations) record(key *v1alpha1.APIKey, scheduled handover, result error) handover {
	scheduled.failure = result
	scheduled.mayBeWritten = scheduled.mayBeWritten || mayHaveWritten(result)
	if result == nil || isSecretRefused(result) {
		scheduled.secret = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handovers[client.ObjectKeyFromObject(key)] = scheduled
	return scheduled
}

// forgetHandover deletes the handover of the key.
func (r *rotations) forgetHandover(key *v1alpha1.APIKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.handovers, client.ObjectKeyFromObject(key))
}

// setDueSince records since when a rotation of the key is due, for the metric. A later time than the recorded one has no effect.
func (r *rotations) setDueSince(name client.ObjectKey, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dueSince == nil {
		r.dueSince = map[client.ObjectKey]time.Time{}
	}
	if former, ok := r.dueSince[name]; !ok || since.Before(former) {
		r.dueSince[name] = since
		r.report()
	}
}

// forget deletes all that is known about the rotation of the key.
func (r *rotations) forget(name client.ObjectKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.handovers, name)
	if _, ok := r.dueSince[name]; ok {
		delete(r.dueSince, name)
		r.report()
	}
}

// report must be called with the lock held.
func (r *rotations) report() {
	var oldest *time.Time
	for _, since := range r.dueSince {
		if oldest == nil || since.Before(*oldest) {
			oldest = &since
		}
	}
	oldestRotation.Store(oldest)
}

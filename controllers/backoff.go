// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

const (
	// maxBackoff is the maximum delay between two attempts to reconcile a key.
	maxBackoff = 5 * time.Minute

	// conflictDelay is the delay before a key is read again that another client wrote at the same time. Each further conflict doubles it, up
	// to maxConflictDelay: a cache that lags causes conflicts until it has caught up. A rotation has 5 seconds for its handover.
	conflictDelay    = 100 * time.Millisecond
	maxConflictDelay = 16 * conflictDelay
)

// cause is the reason for a backoff.
type cause struct {
	// delay is the delay before the second attempt. Each later delay is twice as long.
	delay time.Duration
	// isDeferred is true if the next attempt will probably fail too. It must not delay the first attempts of other keys.
	isDeferred bool
}

var (
	// conflictingClaim: see errConflictingClaim.
	conflictingClaim = cause{delay: 250 * time.Millisecond}
	// formerSecret: see errFormerSecret.
	formerSecret = cause{delay: time.Second}
	// failedCall: a call failed, and may have had an effect.
	failedCall = cause{delay: time.Second, isDeferred: true}
	// secretUnwritable: another Secret has the name, or the API server refused the Secret. The controller watches neither Secrets nor the
	// policies and quotas that refuse them.
	secretUnwritable = cause{delay: 15 * time.Second, isDeferred: true}
)

// phase is the part of a key's state that determines the work of the controller. A backoff applies only to the phase in which it began.
type phase struct {
	uid    types.UID
	state  apikey.State
	issued bool
}

func (r *APIKeyReconciler) phaseOf(key *v1alpha1.APIKey) phase {
	return phase{uid: key.UID, state: apikey.StateOf(key, r.Now()), issued: apikey.IsIssued(key)}
}

// backOff increases the backoff of the key, and returns the delay before its next attempt.
func (r *APIKeyReconciler) backOff(key *v1alpha1.APIKey, why cause) time.Duration {
	return r.backoffs.increase(key, r.phaseOf(key), why, r.Now())
}

// delay sets the time of the key's next attempt without increasing its backoff.
func (r *APIKeyReconciler) delay(key *v1alpha1.APIKey, wait time.Duration) {
	r.backoffs.delayUntil(key, r.phaseOf(key), r.Now().Add(wait))
}

// backoffs holds the backoff of each key that the controller retries. Events, such as those of the controller's own status writes, do not
// shorten a backoff. The controller forgets it when the key is issued, has ended or was deleted, so that the delays also grow if different
// causes alternate.
type backoffs struct {
	mu    sync.Mutex
	byKey map[client.ObjectKey]backoff
}

type backoff struct {
	phase phase
	// generation is the latest metadata.generation that the controller saw.
	generation int64
	cause      cause
	delay      time.Duration
	due        time.Time
	// conflictDelay is the delay of the last attempt, if that ended with a conflict.
	conflictDelay time.Duration
}

// increase doubles the delay of the key, up to maxBackoff, and returns it.
func (b *backoffs) increase(key *v1alpha1.APIKey, in phase, why cause, now time.Time) time.Duration {
	name := client.ObjectKeyFromObject(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	delay := min(max(why.delay, 2*b.in(name, in).delay), maxBackoff)
	b.put(name, backoff{phase: in, generation: key.Generation, cause: why, delay: delay, due: now.Add(delay)})
	return delay
}

// delayUntil sets the time of the key's next attempt without increasing its delay.
func (b *backoffs) delayUntil(key *v1alpha1.APIKey, in phase, due time.Time) {
	name := client.ObjectKeyFromObject(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	former := b.in(name, in)
	former.generation, former.due, former.conflictDelay = key.Generation, due, 0
	b.put(name, former)
}

// delayAfterConflict sets the time of the key's next attempt after a conflict without increasing its delay after failures. It returns the
// time until then.
func (b *backoffs) delayAfterConflict(key *v1alpha1.APIKey, in phase, now time.Time) time.Duration {
	name := client.ObjectKeyFromObject(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	current := b.in(name, in)
	current.conflictDelay = min(max(conflictDelay, 2*current.conflictDelay), maxConflictDelay)
	current.generation, current.due = key.Generation, now.Add(current.conflictDelay)
	b.put(name, current)
	return current.conflictDelay
}

// in returns the backoff of the key in a phase, which is empty if it began in another one. The caller holds the lock.
func (b *backoffs) in(name client.ObjectKey, of phase) backoff {
	if current := b.byKey[name]; current.phase == of {
		return current
	}
	return backoff{phase: of}
}

// waited returns how long the key has been in backoff in this phase.
func (b *backoffs) waited(key *v1alpha1.APIKey, in phase) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return 2 * b.in(client.ObjectKeyFromObject(key), in).delay // the sum of the delays, each of which was twice as long as the one before
}

// remaining returns the time until the key's next attempt, and whether its spec has changed since the last call. The key need not wait if
// the time is 0 or less.
func (b *backoffs) remaining(key *v1alpha1.APIKey, in phase, now time.Time) (wait time.Duration, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := client.ObjectKeyFromObject(key)
	current, ok := b.byKey[name]
	if !ok || current.phase != in || current.due.Sub(now) > maxBackoff { // the clock was set back
		return 0, false
	}
	changed = current.generation != key.Generation
	current.generation = key.Generation
	b.put(name, current)
	return current.due.Sub(now), changed
}

// isDeferred reports whether the key has failed before and will probably fail again.
func (b *backoffs) isDeferred(name client.ObjectKey, in phase) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	current, ok := b.byKey[name]
	return ok && current.phase == in && current.cause.isDeferred
}

func (b *backoffs) forget(name client.ObjectKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byKey, name)
	b.report()
}

// put must be called with the lock held.
func (b *backoffs) put(name client.ObjectKey, next backoff) {
	if b.byKey == nil {
		b.byKey = map[client.ObjectKey]backoff{}
	}
	b.byKey[name] = next
	b.report()
}

// report must be called with the lock held.
func (b *backoffs) report() { retryingKeys.Set(float64(len(b.byKey))) }

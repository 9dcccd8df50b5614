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
	// maxRetryDelay is what the delays between the tries of one key grow to.
	maxRetryDelay = 5 * time.Minute

	// conflictDelay passes before a key is read again that another client wrote at the same time. It does not grow: the try was not
	// completed, and each conflict takes that client a write.
	conflictDelay = 100 * time.Millisecond
)

// cause is why a key is tried again.
type cause struct {
	// delay passes before the second try. Each later delay is twice as long as the one before.
	delay time.Duration
	// canWait is true when the next try will probably fail as well: it must not hold up keys that are tried for the first time.
	canWait bool
}

var (
	// rivalClaim: see errRivalClaim.
	rivalClaim = cause{delay: 250 * time.Millisecond}
	// formerSecret: see errFormerSecret.
	formerSecret = cause{delay: time.Second}
	// failedCall: a call failed, and may have taken effect.
	failedCall = cause{delay: time.Second, canWait: true}
	// secretUnwritable: the Secret is in the way or was refused. Secrets are not watched, and policies and quotas neither.
	secretUnwritable = cause{delay: 15 * time.Second, canWait: true}
)

// phase is what a key is reconciled for. A key that enters another one has nothing to wait for there.
type phase struct {
	uid    types.UID
	state  apikey.State
	issued bool
}

func (r *APIKeyReconciler) phaseOf(key *v1alpha1.APIKey) phase {
	return phase{uid: key.UID, state: apikey.StateOf(key, r.Now()), issued: apikey.IsIssued(key)}
}

// retries are the keys that wait to be tried again. Whatever wakes one of them earlier, and that may be its own status write, it waits on.
// A key is on record until it is issued, has ended or is gone, so that its delays go on growing when another conflict comes between.
type retries struct {
	mu    sync.Mutex
	byKey map[client.ObjectKey]retry
}

type retry struct {
	phase phase
	// generation is the newest one of the key that was seen.
	generation int64
	cause      cause
	delay      time.Duration
	due        time.Time
}

// add returns how long the key waits for its next try.
func (r *retries) add(key *v1alpha1.APIKey, in phase, why cause, now time.Time) time.Duration {
	name := client.ObjectKeyFromObject(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	former := r.byKey[name]
	delay := why.delay
	if former.phase == in {
		delay = min(max(delay, 2*former.delay), maxRetryDelay)
	}
	r.put(name, retry{phase: in, generation: key.Generation, cause: why, delay: delay, due: now.Add(delay)})
	return delay
}

// postpone sets when the next try of the key is due. Its delays do not grow by that.
func (r *retries) postpone(key *v1alpha1.APIKey, in phase, until time.Time) {
	name := client.ObjectKeyFromObject(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	former := r.byKey[name]
	if former.phase != in {
		former = retry{phase: in}
	}
	former.generation, former.due = key.Generation, until
	r.put(name, former)
}

func (r *retries) put(name client.ObjectKey, next retry) {
	if r.byKey == nil {
		r.byKey = map[client.ObjectKey]retry{}
	}
	r.byKey[name] = next
	r.report()
}

// report must be called with the lock.
func (r *retries) report() { retryingKeys.Set(float64(len(r.byKey))) }

// remaining returns how long the key has to wait on, 0 or less when it does not, and whether its owner changed it meanwhile.
func (r *retries) remaining(key *v1alpha1.APIKey, in phase, now time.Time) (wait time.Duration, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := client.ObjectKeyFromObject(key)
	next, ok := r.byKey[name]
	if !ok || next.phase != in || next.due.Sub(now) > maxRetryDelay { // the clock was set back
		return 0, false
	}
	changed = next.generation != key.Generation
	next.generation = key.Generation
	r.put(name, next)
	return next.due.Sub(now), changed
}

// canWait says whether the key failed before, and will probably fail again.
func (r *retries) canWait(name client.ObjectKey, in phase) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, ok := r.byKey[name]
	return ok && next.phase == in && next.cause.canWait
}

func (r *retries) forget(name client.ObjectKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byKey, name)
	r.report()
}

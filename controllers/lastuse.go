// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

const (
	// overlapResolution replaces apikey.LastUseResolution while the key has a superseded token: its owner waits until clients use it no more.
	overlapResolution = time.Hour

	// maxDatingError is how much too early the time of a use may be: its age is rounded to minutes, and the clocks of two leaders may differ.
	maxDatingError = 2 * time.Minute
)

// lastUses holds the last uses of tokens that the status of their key does not have yet.
type lastUses struct {
	mu    sync.Mutex
	byKey map[client.ObjectKey][]lastUse
}

// lastUse is the last use of the token that has this hash.
type lastUse struct {
	hash string
	at   time.Time
}

// note notes a use, unless a later one of the token is noted.
func (u *lastUses) note(name client.ObjectKey, hash string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byKey == nil {
		u.byKey = map[client.ObjectKey][]lastUse{}
	}
	uses := u.byKey[name]
	for i := range uses {
		if uses[i].hash == hash {
			if at.After(uses[i].at) {
				uses[i].at = at
			}
			return
		}
	}
	u.byKey[name] = append(uses, lastUse{hash, at})
}

// of returns the use of a token that is noted, or the zero time.
func (u *lastUses) of(name client.ObjectKey, hash string) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range u.byKey[name] {
		if use.hash == hash {
			return use.at
		}
	}
	return time.Time{}
}

func (u *lastUses) forget(name client.ObjectKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.byKey, name)
}

// NoteUse notes that a token of a key was used. If the status does not show that yet, at its resolution, NoteUse enqueues the key. It
// ignores a key that was deleted or never had the token. It returns an error if the context ends.
func (r *APIKeyReconciler) NoteUse(ctx context.Context, name client.ObjectKey, hash string, at time.Time) error {
	key := &v1alpha1.APIKey{}
	if err := r.Get(ctx, name, key, client.DisableReadYourWritesConsistency); err != nil {
		return client.IgnoreNotFound(err)
	}
	record := apikey.RecordOf(key, hash)
	if key.IsUnreadable(decisiveFields...) || record == nil || !isUseDue(key, record, at) {
		return nil
	}
	r.lastUses.note(client.ObjectKeyFromObject(key), record.Hash, at) // the strings of the cache, so that they need no memory
	select {
	case r.used <- event.GenericEvent{Object: key}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// usedKeys returns the source of the keys of NoteUse. Their reconcile can wait.
func (r *APIKeyReconciler) usedKeys() source.Source {
	return source.Channel(r.used, handler.Funcs{GenericFunc: func(_ context.Context, e event.GenericEvent, queue requestQueue) {
		add(queue, client.ObjectKeyFromObject(e.Object), priorityDeferred)
	}})
}

// mergeLastUses records the uses that are noted. When the status has them, it forgets them.
func (r *APIKeyReconciler) mergeLastUses(key *v1alpha1.APIKey) {
	name, merged := client.ObjectKeyFromObject(key), false
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		if at := r.lastUses.of(name, record.Hash); isUseDue(key, record, at) {
			record.LastUsedAt, merged = new(metav1.NewTime(at.Truncate(time.Second))), true
		}
	}
	if !merged {
		r.lastUses.forget(name)
	}
}

// isUseDue reports whether a use is so much later than the recorded one that it must be recorded. A use from before the token was accepted
// is of an earlier key with the same name and imported token, or a faulty authenticator reports it.
func isUseDue(key *v1alpha1.APIKey, record *v1alpha1.TokenRecord, at time.Time) bool {
	if at.IsZero() || (record.NotBefore != nil && at.Before(record.NotBefore.Add(-maxDatingError))) {
		return false
	}
	resolution := apikey.LastUseResolution
	if apikey.NextEnd(key) != nil {
		resolution = overlapResolution
	}
	return record.LastUsedAt == nil || at.Sub(record.LastUsedAt.Time) >= resolution
}

// countLastUse counts a write of the status, if it has a later use of a token than before.
func countLastUse(before, key *v1alpha1.APIKey) {
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		if former := apikey.RecordOf(before, record.Hash); former != nil && !record.LastUsedAt.Equal(former.LastUsedAt) {
			lastUsesTotal.Inc()
			return
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// standing is what of a key matters to those that compete with it.
type standing struct{ gone, retired, issued, claimed, blocked bool }

// standingOf returns the standing of a key; nil is one that was deleted.
func standingOf(key *v1alpha1.APIKey) standing {
	if key == nil {
		return standing{gone: true}
	}
	return standing{
		retired: apikey.IsRetired(key), issued: apikey.IsIssued(key), claimed: apikey.IsClaimed(key), blocked: apikey.IsBlocked(key),
	}
}

// holderChanged says whether the key gave up for good what it held, or holds it for good now.
func (after standing) holderChanged(before standing) bool {
	return after.gone || (after.retired && !before.retired) || (after.issued && !before.issued)
}

// gaveWay says whether the key let another one go first, which may be only until it is tried again.
func (after standing) gaveWay(before standing) bool {
	return (before.claimed && !after.claimed) || (after.blocked && !before.blocked)
}

// enqueueCompetitors adds the keys to the queue for which it matters that another one was created, changed or deleted.
func (r *APIKeyReconciler) enqueueCompetitors() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ requestQueue) {
			r.leaders.Invalidate(nil, e.Object.(*v1alpha1.APIKey))
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, queue requestQueue) {
			former, key := e.ObjectOld.(*v1alpha1.APIKey), e.ObjectNew.(*v1alpha1.APIKey)
			if former.UID != key.UID { // the watch missed a deletion
				r.standingChanged(ctx, queue, former, nil)
				former = key
			}
			r.standingChanged(ctx, queue, former, key)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, queue requestQueue) {
			r.standingChanged(ctx, queue, e.Object.(*v1alpha1.APIKey), nil)
		},
	}
}

// standingChanged enqueues the key that is the next to have what another one held or claimed. All others wait on; only when their holder
// changed for good, their status is to name another one, and that can wait. Of many keys, only the first matters to the others: a key that
// waited, and is changed or deleted, costs nothing.
func (r *APIKeyReconciler) standingChanged(ctx context.Context, queue requestQueue, former, key *v1alpha1.APIKey) {
	firstChanged := r.leaders.Invalidate(former, key)
	before, after := standingOf(former), standingOf(key)
	holderChanged := after.holderChanged(before)
	if !firstChanged || (!holderChanged && !after.gaveWay(before)) {
		return
	}
	err := r.enqueueNext(ctx, queue, former)
	if err == nil && holderChanged {
		err = r.enqueueWaiting(ctx, queue, former)
	}
	if err != nil {
		log.FromContext(ctx).Error(err, "cannot find the keys that compete with one whose standing has changed",
			"apikey", client.ObjectKeyFromObject(former))
	}
}

// enqueueNext enqueues the first of the keys that compete with one, if it waits and does not say what for.
func (r *APIKeyReconciler) enqueueNext(ctx context.Context, queue requestQueue, key *v1alpha1.APIKey) error {
	first, err := r.leaders.ListConflicting(ctx, r, key)
	if err != nil {
		return err
	}
	return r.enqueueWhere(ctx, queue, key, first, func(other *v1alpha1.APIKey, conflict *apikey.Conflict) (priority int, ok bool) {
		return r.priorityOfNextInLine(other), conflict == nil || conflict.Message != readyMessage(other)
	})
}

// enqueueWaiting enqueues the keys that compete with one and do not say what they wait for.
func (r *APIKeyReconciler) enqueueWaiting(ctx context.Context, queue requestQueue, key *v1alpha1.APIKey) error {
	others, err := apikey.ListConflicting(ctx, r, key)
	if err != nil {
		return err
	}
	return r.enqueueWhere(ctx, queue, key, others, func(other *v1alpha1.APIKey, conflict *apikey.Conflict) (priority int, ok bool) {
		return priorityDeferred, conflict != nil && conflict.Message != readyMessage(other)
	})
}

func (r *APIKeyReconciler) enqueueWhere(
	ctx context.Context, queue requestQueue, key *v1alpha1.APIKey, others []v1alpha1.APIKey,
	where func(other *v1alpha1.APIKey, conflict *apikey.Conflict) (priority int, ok bool),
) error {
	for i := range others {
		other := &others[i]
		if other.UID == key.UID || apikey.IsIssued(other) || apikey.IsRetired(other) || waitsForItsSecret(other) {
			continue
		}
		conflict, err := r.findConflict(ctx, other)
		if err != nil {
			return err
		}
		if priority, ok := where(other, conflict); ok {
			add(queue, client.ObjectKeyFromObject(other), priority)
		}
	}
	return nil
}

// findConflict returns why the key must stand back behind another one, as far as the cache knows, or nil.
func (r *APIKeyReconciler) findConflict(ctx context.Context, key *v1alpha1.APIKey) (*apikey.Conflict, error) {
	others, err := r.leaders.ListConflicting(ctx, r, key)
	if err != nil {
		return nil, err
	}
	return apikey.FindConflict(key, others), nil
}

// hastenEnd has the end of a key that has expired recorded soon, since another one waits for its app name.
func (r *APIKeyReconciler) hastenEnd(ctx context.Context, holder client.ObjectKey) {
	key := &v1alpha1.APIKey{}
	err := r.Get(ctx, holder, key, client.DisableReadYourWritesConsistency)
	if err == nil && !apikey.IsRetired(key) && apikey.StateOf(key, r.Now()) == apikey.StateExpired {
		add(r.queue, holder, priorityNew)
	}
}

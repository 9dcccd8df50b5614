// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// conflictState is the part of a key's state that affects the keys that conflict with it.
type conflictState struct {
	deleted, retired, issued, blocked bool
	// recorded are the token hashes in the status, held those that are accepted or that the key declares.
	recorded, held []string
}

// conflictStateOf returns the conflictState of a key, or of a deleted key if it is nil.
func conflictStateOf(key *v1alpha1.APIKey) conflictState {
	if key == nil {
		return conflictState{deleted: true}
	}
	state := conflictState{retired: apikey.IsRetired(key), issued: apikey.MayBeIssued(key), blocked: apikey.IsBlocked(key)}
	if key.Spec.TokenHash != "" {
		state.held = append(state.held, key.Spec.TokenHash)
	}
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		state.recorded = append(state.recorded, record.Hash)
		if record.NotBefore != nil {
			state.held = append(state.held, record.Hash)
		}
	}
	return state
}

// holderChanged reports whether the key permanently released its app name or a hash, or permanently holds one now.
func (after conflictState) holderChanged(before conflictState) bool {
	return after.deleted || (after.retired && !before.retired) || (after.issued && !before.issued) ||
		!containsAll(after.held, before.held) || !containsAll(before.held, after.held)
}

// yielded reports whether the key lets another key precede it, at least until its next attempt, or has dropped a hash.
func (after conflictState) yielded(before conflictState) bool {
	return (before.issued && !after.issued) || !containsAll(after.recorded, before.recorded) || (after.blocked && !before.blocked)
}

func containsAll(hashes, others []string) bool {
	return !slices.ContainsFunc(others, func(hash string) bool { return !slices.Contains(hashes, hash) })
}

// enqueueConflicting enqueues the keys that are affected by an event of a key with which they conflict.
func (r *APIKeyReconciler) enqueueConflicting() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ requestQueue) {
			r.firstKeys.Invalidate(nil, e.Object.(*v1alpha1.APIKey))
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, queue requestQueue) {
			former, key := e.ObjectOld.(*v1alpha1.APIKey), e.ObjectNew.(*v1alpha1.APIKey)
			if former.UID != key.UID { // the watch missed a deletion
				r.enqueueAfterChange(ctx, queue, former, nil)
				former = key
			}
			r.enqueueAfterChange(ctx, queue, former, key)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, queue requestQueue) {
			r.enqueueAfterChange(ctx, queue, e.Object.(*v1alpha1.APIKey), nil)
		},
	}
}

// enqueueAfterChange enqueues the key that can be issued next after another key changed. If the holder changed permanently, it also
// enqueues the other waiting keys at a low priority, because their status must name the new holder. Only the first key of a large group
// affects the others, so that a change of a waiting key causes no work.
func (r *APIKeyReconciler) enqueueAfterChange(ctx context.Context, queue requestQueue, former, key *v1alpha1.APIKey) {
	firstChanged := r.firstKeys.Invalidate(former, key)
	before, after := conflictStateOf(former), conflictStateOf(key)
	holderChanged := after.holderChanged(before)
	if !firstChanged || (!holderChanged && !after.yielded(before)) {
		return
	}
	err := r.enqueueNext(ctx, queue, former)
	if err == nil && holderChanged {
		err = r.enqueueWaiting(ctx, queue, former)
	}
	if err != nil {
		log.FromContext(ctx).Error(err, "Cannot list the keys that conflict with a changed key", "apikey", client.ObjectKeyFromObject(former))
	}
}

// enqueueNext enqueues the first of the keys that conflict with the key, unless its status already names the conflict.
func (r *APIKeyReconciler) enqueueNext(ctx context.Context, queue requestQueue, key *v1alpha1.APIKey) error {
	first, err := r.firstKeys.ListConflicting(ctx, r, key)
	if err != nil {
		return err
	}
	return r.enqueueWhere(ctx, queue, key, first, func(other *v1alpha1.APIKey, conflict *apikey.Conflict) (priority int, ok bool) {
		return r.priorityToIssue(other), conflict == nil || conflict.Message != readyMessage(other)
	})
}

// enqueueWaiting enqueues the keys that conflict with the key and whose status does not name their conflict.
func (r *APIKeyReconciler) enqueueWaiting(ctx context.Context, queue requestQueue, key *v1alpha1.APIKey) error {
	others, err := apikey.ListConflicting(ctx, r, key)
	if err != nil {
		return err
	}
	return r.enqueueWhere(ctx, queue, key, others, func(other *v1alpha1.APIKey, conflict *apikey.Conflict) (priority int, ok bool) {
		return priorityDeferred, conflict != nil && conflict.Message != readyMessage(other)
	})
}

// enqueueWhere enqueues those of the others that wait for an app name or a hash, at the priority that the function returns if ok is true.
func (r *APIKeyReconciler) enqueueWhere(
	ctx context.Context, queue requestQueue, key *v1alpha1.APIKey, others []v1alpha1.APIKey,
	where func(other *v1alpha1.APIKey, conflict *apikey.Conflict) (priority int, ok bool),
) error {
	for i := range others {
		other := &others[i]
		if other.UID == key.UID || !apikey.AwaitsToken(other) || apikey.IsRetired(other) || waitsForSecret(other) {
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

// findConflict returns the conflict of the key according to the cache, or nil.
func (r *APIKeyReconciler) findConflict(ctx context.Context, key *v1alpha1.APIKey) (*apikey.Conflict, error) {
	others, err := r.firstKeys.ListConflicting(ctx, r, key)
	if err != nil {
		return nil, err
	}
	return apikey.FindConflict(key, others), nil
}

// enqueueExpired enqueues the holder of an app name that has expired, at a high priority because another key waits for the name.
func (r *APIKeyReconciler) enqueueExpired(ctx context.Context, holder client.ObjectKey) {
	key := &v1alpha1.APIKey{}
	err := r.Get(ctx, holder, key, client.DisableReadYourWritesConsistency)
	if err == nil && !apikey.IsRetired(key) && apikey.StateOf(key, r.Now()) == apikey.StateExpired {
		add(r.Queue, holder, priorityNew)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// The priorities of keys in the queue, highest first.
const (
	// priorityNew is the priority of keys that can be issued: their owners wait for them.
	priorityNew = 200
	// priorityDeadline is the priority of issued keys whose one-time Secret is due for deletion.
	priorityDeadline = 100
	// priorityUpdate is the priority of all other changes of issued keys.
	priorityUpdate = 0
	// priorityHandover is the priority of rotations whose new token this process must hand over. Very many keys may rotate at once, so that
	// this is deferred work. It precedes all other deferred work of the namespace: no rotation starts while earlier ones wait for a worker.
	priorityHandover = priorityDeferred / 2
	// priorityDeferred is the priority of other work that can wait. Keys have it that failed before, wait for another key or have not
	// changed. Keys that ended have it too, because authenticators reject them without their record.
	priorityDeferred = handler.LowPriority
)

// isDeferred reports whether work of the priority may use only the few workers for deferred work.
func isDeferred(priority int) bool { return priority <= priorityHandover }

// priorityOf returns the priority of a key that was created or changed.
func (r *APIKeyReconciler) priorityOf(key *v1alpha1.APIKey) int {
	switch {
	case apikey.StateOf(key, r.Now()) != apikey.StateActive || isStalled(key) || apikey.WaitsForHolder(key):
		return priorityDeferred
	case !apikey.IsIssued(key):
		return r.priorityToIssue(key)
	case r.secretIsDue(key):
		return priorityDeadline
	default:
		return priorityUpdate
	}
}

// priorityToIssue returns the priority of a key that has no token and no conflict with another key.
func (r *APIKeyReconciler) priorityToIssue(key *v1alpha1.APIKey) int {
	if r.backoffs.isDeferred(client.ObjectKeyFromObject(key), r.phaseOf(key)) {
		return priorityDeferred
	}
	return priorityNew
}

// priorityOfRequeue returns the priority of the key at its next deadline.
func (r *APIKeyReconciler) priorityOfRequeue(key *v1alpha1.APIKey) int {
	if r.rotations.untilHandover(key, r.Now()) != never {
		return priorityHandover
	}
	if due, ok := secretDeadline(key); ok && due.Sub(r.Now()) < min(r.untilExpiry(key), r.untilWarning(key)) {
		return priorityDeadline
	}
	if apikey.IsIssued(key) {
		return priorityDeferred // the deadline is its expiry, a warning, a rotation, or the end of a superseded token
	}
	return r.priorityOf(key)
}

// enqueueByPriority enqueues the key of each event at its priority.
func (r *APIKeyReconciler) enqueueByPriority() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, queue requestQueue) {
			r.enqueue(queue, e.Object.(*v1alpha1.APIKey), e.IsInInitialList)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue requestQueue) {
			r.enqueue(queue, e.ObjectNew.(*v1alpha1.APIKey), e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion())
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, queue requestQueue) {
			add(queue, client.ObjectKeyFromObject(e.Object), priorityDeferred) // to forget its backoff
		},
	}
}

type requestQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func (r *APIKeyReconciler) enqueue(queue requestQueue, key *v1alpha1.APIKey, unchanged bool) {
	priority := r.priorityOf(key)
	if unchanged && priority == priorityUpdate {
		priority = priorityDeferred
	}
	add(queue, client.ObjectKeyFromObject(key), priority)
}

func add(queue requestQueue, key client.ObjectKey, priority int) {
	queue.(priorityqueue.PriorityQueue[reconcile.Request]).AddWithOpts(
		priorityqueue.AddOpts{Priority: &priority}, reconcile.Request{NamespacedName: key})
}

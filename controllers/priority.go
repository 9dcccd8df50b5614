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

// The order in which keys are reconciled, the first first.
const (
	// priorityNew is that of keys that may be issued: their owners wait for them.
	priorityNew = 200
	// priorityDeadline is that of issued keys whose one-time Secret is to be deleted now.
	priorityDeadline = 100
	// priorityUpdate is that of all other changes of issued keys.
	priorityUpdate = 0
	// priorityDeferred is that of what can wait: the end of a key, which authenticators know without its record; the next try of a key
	// that failed before; a key that waits for another one; a key that did not change.
	priorityDeferred = handler.LowPriority
)

// canWait says whether work of a priority has only the few workers for work that can wait.
func canWait(priority int) bool { return priority <= priorityDeferred }

// priorityOf returns how urgent it is to reconcile a key that was created or changed.
func (r *APIKeyReconciler) priorityOf(key *v1alpha1.APIKey) int {
	switch {
	case apikey.StateOf(key, r.Now()) != apikey.StateActive || isStalled(key):
		return priorityDeferred
	case !apikey.IsIssued(key):
		return r.priorityOfNextInLine(key)
	case r.secretIsDue(key):
		return priorityDeadline
	default:
		return priorityUpdate
	}
}

// priorityOfNextInLine returns how urgent it is to issue a key that nothing stands in the way of, as far as its competitors go.
func (r *APIKeyReconciler) priorityOfNextInLine(key *v1alpha1.APIKey) int {
	if r.retries.canWait(client.ObjectKeyFromObject(key), r.phaseOf(key)) {
		return priorityDeferred
	}
	return priorityNew
}

// priorityOfNext returns how urgent the key will be when its time comes by itself.
func (r *APIKeyReconciler) priorityOfNext(key *v1alpha1.APIKey) int {
	if due, ok := secretDue(key); ok && due.Sub(r.Now()) < r.untilExpiry(key) {
		return priorityDeadline
	}
	if apikey.IsIssued(key) {
		return priorityDeferred // it expires
	}
	return r.priorityOf(key)
}

// enqueueByPriority adds the keys of events to the queue.
func (r *APIKeyReconciler) enqueueByPriority() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, queue requestQueue) {
			r.enqueue(queue, e.Object.(*v1alpha1.APIKey), e.IsInInitialList)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue requestQueue) {
			r.enqueue(queue, e.ObjectNew.(*v1alpha1.APIKey), e.ObjectOld.GetResourceVersion() == e.ObjectNew.GetResourceVersion())
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, queue requestQueue) {
			add(queue, client.ObjectKeyFromObject(e.Object), priorityDeferred) // to forget its retries
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

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"squirrel.dev/apikey-operator/api/competitors"
	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// standingChanged passes the events after which a competing key may have to think again: another one was deleted, ended, claimed a
// hash, gave it up, or was issued.
var standingChanged = predicate.Funcs{
	CreateFunc:  func(event.CreateEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		return standingOf(e.ObjectOld) != standingOf(e.ObjectNew)
	},
}

type standing struct{ retired, claimed, issued bool }

func standingOf(object client.Object) standing {
	key := object.(*v1alpha1.APIKey)
	return standing{retired: key.Retired(), claimed: key.Claimed(), issued: key.Issued()}
}

// competitorsToWake maps a key whose standing has changed to the keys that compete with it.
func (r *APIKeyReconciler) competitorsToWake(ctx context.Context, object client.Object) []reconcile.Request {
	key := object.(*v1alpha1.APIKey)
	others, err := competitors.List(ctx, r, key)
	if err != nil {
		log.FromContext(ctx).Error(err, "cannot find the keys that compete with one whose standing has changed",
			"apikey", client.ObjectKeyFromObject(key))
		return nil
	}
	var requests []reconcile.Request
	for i := range others {
		if other := &others[i]; other.UID != key.UID && !other.Issued() {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: other.Namespace, Name: other.Name}})
		}
	}
	return requests
}

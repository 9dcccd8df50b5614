// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// CacheOptions are what the cache of the controller's manager is to be built with, since there may be very many keys.
func CacheOptions() cache.Options {
	return cache.Options{
		ByObject:         map[client.Object]cache.ByObject{&v1alpha1.APIKey{}: {Transform: slim}},
		DefaultTransform: cache.TransformStripManagedFields(),
	}
}

// slim takes from a key all metadata that is not read here, which may be of any size, and has it share with others the texts that most have
// in common. What was taken is not lost: the controller writes only the status, and the API server keeps the rest as it is.
func slim(object any) (any, error) {
	key, ok := object.(*v1alpha1.APIKey)
	if !ok {
		return object, nil // what is known of a deleted key
	}
	key.ObjectMeta = metav1.ObjectMeta{
		Namespace:         key.Namespace,
		Name:              key.Name,
		UID:               key.UID,
		ResourceVersion:   key.ResourceVersion,
		Generation:        key.Generation,
		CreationTimestamp: key.CreationTimestamp,
		DeletionTimestamp: key.DeletionTimestamp,
	}
	share(&key.Kind)
	share(&key.APIVersion)
	share(&key.Namespace)
	if key.Spec.Secret != nil {
		share(&key.Spec.Secret.Key)
	}
	for i := range key.Status.Conditions {
		condition := &key.Status.Conditions[i]
		share(&condition.Type)
		share(&condition.Reason)
		share(&condition.Message)
		share(&condition.Status)
	}
	return key, nil
}

// share puts an equal text in the place of one, which all have in common that are told to share theirs.
func share[S ~string](text *S) { *text = unique.Make(*text).Value() }

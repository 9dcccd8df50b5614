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

// CacheOptions returns the options of the manager's cache for the keys of these namespaces, or of all namespaces if there are none. They
// bound the memory that each key takes.
func CacheOptions(namespaces ...string) cache.Options {
	options := cache.Options{
		ByObject:         map[client.Object]cache.ByObject{&v1alpha1.APIKey{}: {Transform: trimKey}},
		DefaultTransform: cache.TransformStripManagedFields(),
	}
	if len(namespaces) > 0 {
		options.DefaultNamespaces = make(map[string]cache.Config, len(namespaces))
	}
	for _, namespace := range namespaces {
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
	return options
}

// trimKey removes the metadata that the controller does not read, which may have any size, and interns the strings that most keys have in
// common. It also removes the labels and annotations of spec.secret: the response to the write of a claim has them. The API server keeps
// what is removed, because the controller writes only the status.
func trimKey(object any) (any, error) {
	key, ok := object.(*v1alpha1.APIKey)
	if !ok {
		return object, nil // the tombstone of a deleted key
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
	intern(&key.Kind)
	intern(&key.APIVersion)
	intern(&key.Namespace)
	if key.Spec.Secret != nil {
		intern(&key.Spec.Secret.Key)
		key.Spec.Secret.Labels, key.Spec.Secret.Annotations = nil, nil
	}
	for i := range key.Status.Conditions {
		condition := &key.Status.Conditions[i]
		intern(&condition.Type)
		intern(&condition.Reason)
		intern(&condition.Message)
		intern(&condition.Status)
	}
	return key, nil
}

// intern replaces the string by the copy that all equal strings share.
func intern[S ~string](s *S) { *s = unique.Make(*s).Value() }

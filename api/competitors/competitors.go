// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package competitors finds the keys that compete with a key for its app name or its token hash, through the indexes of a cache. The
// controller and the admission webhook look at the same ones.
package competitors

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

const (
	appNameIndex   = "spec.appName"
	tokenHashIndex = "status.tokens.hash"
)

// Index adds the indexes that List needs to a cache of APIKeys. It must be called once, before the cache starts.
func Index(ctx context.Context, indexer client.FieldIndexer) error {
	indexes := map[string]func(*v1alpha1.APIKey) []string{
		appNameIndex:   func(key *v1alpha1.APIKey) []string { return []string{key.Spec.AppName} },
		tokenHashIndex: (*v1alpha1.APIKey).Hashes,
	}
	for field, values := range indexes {
		if err := indexer.IndexField(ctx, &v1alpha1.APIKey{}, field, func(object client.Object) []string {
			return values(object.(*v1alpha1.APIKey))
		}); err != nil {
			return fmt.Errorf("index APIKeys by %s: %w", field, err)
		}
	}
	return nil
}

// List returns the keys of the key's namespace that have its app name or share a token hash with it. The key itself is among them
// when the reader knows it; a key that shares both may be there twice. They are the cache's own: nobody may change them.
func List(ctx context.Context, reader client.Reader, key *v1alpha1.APIKey, options ...client.ListOption) ([]v1alpha1.APIKey, error) {
	found, err := list(ctx, reader, key.Namespace, appNameIndex, key.Spec.AppName, options)
	if err != nil {
		return nil, err
	}
	for _, hash := range key.Hashes() {
		sameHash, err := list(ctx, reader, key.Namespace, tokenHashIndex, hash, options)
		if err != nil {
			return nil, err
		}
		found = append(found, sameHash...)
	}
	return found, nil
}

func list(
	ctx context.Context, reader client.Reader, namespace, index, value string, options []client.ListOption,
) ([]v1alpha1.APIKey, error) {
	var keys v1alpha1.APIKeyList
	options = append([]client.ListOption{
		client.InNamespace(namespace),
		client.MatchingFields{index: value},
		client.UnsafeDisableDeepCopy, // each of many competitors looks at all the others
	}, options...)
	if err := reader.List(ctx, &keys, options...); err != nil {
		return nil, fmt.Errorf("list the APIKeys that compete: %w", err)
	}
	return keys.Items, nil
}

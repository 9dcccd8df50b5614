// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apikey finds the keys that compete with a key for its app name or its token hash, through the indexes of a cache. The
// controller and the admission webhook look at the same ones.
package apikey

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// index finds the keys that have a text. A cache would keep a set of keys for each value of an index, twice, and of 100 000 app names and
// hashes each would have its own: more memory than the keys themselves take. So the values are the buckets that the texts fall into, and
// who looks for a text leaves out the keys that have another one of its bucket.
type index struct {
	field string
	texts func(*v1alpha1.APIKey) []string
}

var (
	byAppName = index{"spec.appName", func(key *v1alpha1.APIKey) []string {
		return []string{CanonicalAppName(key.Spec.AppName)}
	}}
	byTokenHash = index{"status.tokens.hash", HashesOf}
)

// buckets are so many that the 400 keys of one, of 100 000 keys in one namespace, are looked through in less time than one is written, and
// so few that keys share one when there are 100 000 in 100 namespaces.
const buckets = 256

var bucketSeed = maphash.MakeSeed()

func bucketOf(text string) string {
	return strconv.FormatUint(maphash.String(bucketSeed, text)%buckets, 10)
}

// Index adds the indexes that List needs to a cache of APIKeys. It must be called once, before the cache starts.
func Index(ctx context.Context, indexer client.FieldIndexer) error {
	for _, by := range []index{byAppName, byTokenHash} {
		if err := indexer.IndexField(ctx, &v1alpha1.APIKey{}, by.field, by.bucketsOf); err != nil {
			return fmt.Errorf("index APIKeys by %s: %w", by.field, err)
		}
	}
	return nil
}

func (by index) bucketsOf(object client.Object) []string {
	found := by.texts(object.(*v1alpha1.APIKey))
	for i, text := range found {
		found[i] = bucketOf(text)
	}
	return found
}

// List returns the keys of the key's namespace that have its app name or share a token hash with it. The key itself is among them
// when the reader knows it; a key that shares both may be there twice. They are the cache's own: nobody may change them. List waits for no
// write of this process that the cache has not seen yet.
func List(ctx context.Context, reader client.Reader, key *v1alpha1.APIKey) ([]v1alpha1.APIKey, error) {
	var found []v1alpha1.APIKey
	for _, by := range []index{byAppName, byTokenHash} {
		for _, text := range by.texts(key) {
			having, err := by.list(ctx, reader, key.Namespace, text)
			if err != nil {
				return nil, err
			}
			found = append(found, having...)
		}
	}
	return found, nil
}

// ListByHash returns the keys of a namespace that declare or record a token hash, as List does.
func ListByHash(ctx context.Context, reader client.Reader, namespace, hash string) ([]v1alpha1.APIKey, error) {
	return byTokenHash.list(ctx, reader, namespace, hash)
}

func (by index) list(ctx context.Context, reader client.Reader, namespace, text string) ([]v1alpha1.APIKey, error) {
	var keys v1alpha1.APIKeyList
	if err := reader.List(ctx, &keys,
		client.InNamespace(namespace),
		client.MatchingFields{by.field: bucketOf(text)},
		client.DisableReadYourWritesConsistency,
		client.UnsafeDisableDeepCopy, // each of many competitors looks at all the others
	); err != nil {
		return nil, fmt.Errorf("list the APIKeys that compete: %w", err)
	}
	having := keys.Items[:0]
	for i := range keys.Items {
		if slices.Contains(by.texts(&keys.Items[i]), text) {
			having = append(having, keys.Items[i])
		}
	}
	return having, nil
}

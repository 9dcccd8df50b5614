// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

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

// index finds the keys that have a value by the bucket of the value's hash. A cache stores each value of an index twice, each time with a
// set of keys. With 100 000 different app names and hashes, these sets would take more memory than the keys. With buckets they take little,
// and the caller skips the keys that have another value of the bucket.
type index struct {
	// field is the name of the index in the cache. It is not a field selector of the API server, which has other values.
	field  string
	values func(*v1alpha1.APIKey) []string
	// first returns the first, by precedence, of those keys that have the value.
	first func(value string, keys []v1alpha1.APIKey) *v1alpha1.APIKey
}

var (
	byAppName   = &index{field: "bucket of spec.appName", values: appNamesOf, first: firstForAppName}
	byTokenHash = &index{field: "bucket of token hashes", values: HashesOf, first: FirstForHash}

	indexes = []*index{byAppName, byTokenHash}
)

func firstForAppName(_ string, keys []v1alpha1.APIKey) *v1alpha1.APIKey { return FirstForName(keys) }

func appNamesOf(key *v1alpha1.APIKey) []string { return []string{CanonicalAppName(key.Spec.AppName)} }

// buckets is the number of buckets. With 100 000 keys in one namespace, a bucket has 400, which list filters in less time than one write
// takes. With 100 000 keys in 100 namespaces, the keys still share buckets.
const buckets = 256

var bucketSeed = maphash.MakeSeed()

func bucketOf(value string) string {
	return strconv.FormatUint(maphash.String(bucketSeed, value)%buckets, 10)
}

// Index adds the indexes that [ListConflicting] needs to a cache of APIKeys. Call it once, before the cache starts.
func Index(ctx context.Context, indexer client.FieldIndexer) error {
	for _, by := range indexes {
		if err := indexer.IndexField(ctx, &v1alpha1.APIKey{}, by.field, by.bucketsOf); err != nil {
			return fmt.Errorf("index APIKeys by %s: %w", by.field, err)
		}
	}
	return nil
}

func (by *index) bucketsOf(object client.Object) []string {
	values := by.values(object.(*v1alpha1.APIKey))
	for i, value := range values {
		values[i] = bucketOf(value)
	}
	return values
}

// ListConflicting returns the keys of the key's namespace that have its app name or one of its token hashes. The result includes the key
// itself if the cache has it, and a key with both in common twice. The keys belong to the cache: callers must not change them.
// ListConflicting does not wait for writes of this process that the cache has not seen yet.
func ListConflicting(ctx context.Context, reader client.Reader, key *v1alpha1.APIKey) ([]v1alpha1.APIKey, error) {
	return listGroups(key, func(of group) ([]v1alpha1.APIKey, error) { return of.list(ctx, reader) })
}

// ListByHash returns the keys of the namespace that have the token hash, as [ListConflicting] does.
func ListByHash(ctx context.Context, reader client.Reader, namespace, hash string) ([]v1alpha1.APIKey, error) {
	return group{byTokenHash, namespace, hash}.list(ctx, reader)
}

// group identifies the keys of a namespace that have one value in common.
type group struct {
	*index
	namespace, value string
}

// groupsOf returns the groups that the key belongs to.
func groupsOf(key *v1alpha1.APIKey) []group {
	var groups []group
	for _, by := range indexes {
		for _, value := range by.values(key) {
			groups = append(groups, group{by, key.Namespace, value})
		}
	}
	return groups
}

// listGroups lists the groups of the key, one after the other.
func listGroups(key *v1alpha1.APIKey, list func(group) ([]v1alpha1.APIKey, error)) ([]v1alpha1.APIKey, error) {
	var found []v1alpha1.APIKey
	for _, of := range groupsOf(key) {
		keys, err := list(of)
		if err != nil {
			return nil, err
		}
		found = append(found, keys...)
	}
	return found, nil
}

// list returns the keys of the group.
func (g group) list(ctx context.Context, reader client.Reader) ([]v1alpha1.APIKey, error) {
	var keys v1alpha1.APIKeyList
	if err := reader.List(ctx, &keys,
		client.InNamespace(g.namespace),
		client.MatchingFields{g.field: bucketOf(g.value)},
		client.DisableReadYourWritesConsistency,
		client.UnsafeDisableDeepCopy, // every key of a large group may list all the others
	); err != nil {
		return nil, fmt.Errorf("list the conflicting APIKeys: %w", err)
	}
	matching := keys.Items[:0]
	for i := range keys.Items {
		if slices.Contains(g.values(&keys.Items[i]), g.value) {
			matching = append(matching, keys.Items[i])
		}
	}
	return matching, nil
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework/fakecache"
)

// TestInvariant2_ListConflictingReturnsAllConflictingKeysAndNoOthers has far more keys than the indexes have buckets, in two namespaces.
// Some have an app name in common, some a hash in their spec or status, and most of them neither.
func TestInvariant2_ListConflictingReturnsAllConflictingKeysAndNoOthers(t *testing.T) {
	t.Parallel()
	const count = 3_000
	keys := make([]v1alpha1.APIKey, count)
	for i := range keys {
		key := &keys[i]
		key.ObjectMeta = metav1.ObjectMeta{
			Namespace: []string{"shop", "bank"}[i%2], Name: fmt.Sprint("k", i), UID: types.UID(fmt.Sprint("uid-", i)), ResourceVersion: "1",
		}
		key.Spec = v1alpha1.APIKeySpec{AppName: fmt.Sprint("App ", i%(count-300)), ReadAccess: true}
		switch hash := token.Hash(fmt.Sprint(i % (count - 500))); i % 3 {
		case 0:
			key.Spec.TokenHash = hash
		case 1:
			key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: hash}, {Hash: token.Hash(fmt.Sprint("former ", i%700))}}
		}
	}
	named := map[string][]string{} // the names of the keys, by app name and hash
	for i := range keys {
		for _, value := range valuesOf(&keys[i]) {
			named[value] = append(named[value], keys[i].Name)
		}
	}

	filled := fakecache.New(t, cache.Options{}, keys)
	for i := range keys {
		found, err := apikey.ListConflicting(t.Context(), filled, &keys[i])
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for j := range found {
			got = append(got, found[j].Name)
		}
		for _, value := range valuesOf(&keys[i]) {
			want = append(want, named[value]...)
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), slices.Compact(got)); diff != "" {
			t.Fatalf("the keys that conflict with %s (-want +got):\n%s", keys[i].Name, diff)
		}
	}
}

// valuesOf returns the app name and the hashes of the key, in its namespace.
func valuesOf(key *v1alpha1.APIKey) []string {
	values := []string{key.Namespace + "/" + key.Spec.AppName}
	for _, hash := range apikey.HashesOf(key) {
		values = append(values, key.Namespace+"/"+hash)
	}
	return values
}

// BenchmarkListConflicting lists the conflicting keys of one of 100 000 keys in a namespace.
func BenchmarkListConflicting(b *testing.B) {
	keys := make([]v1alpha1.APIKey, 100_000)
	for i := range keys {
		keys[i].ObjectMeta = metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("k", i), UID: types.UID(fmt.Sprint("uid-", i)), ResourceVersion: "1"}
		keys[i].Spec.AppName = fmt.Sprint("App ", i)
		keys[i].Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(fmt.Sprint(i))}}
	}
	filled := fakecache.New(b, cache.Options{}, keys)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := apikey.ListConflicting(b.Context(), filled, &keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

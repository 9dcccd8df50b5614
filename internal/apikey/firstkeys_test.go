// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework/fakecache"
)

func TestFirstKeys_CachesTheFirstKeyOfALargeGroup(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keyOf := func(app string, number int) v1alpha1.APIKey {
		name := fmt.Sprintf("%s-%03d", app, number)
		return v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: name, UID: types.UID(name), ResourceVersion: "1",
				CreationTimestamp: metav1.NewTime(created.Add(time.Duration(number) * time.Minute)),
			},
			Spec: v1alpha1.APIKeySpec{AppName: app, ReadAccess: true},
		}
	}
	var keys []v1alpha1.APIKey
	for i := range 100 {
		keys = append(keys, keyOf("many", i+1))
	}
	for i := range 3 {
		keys = append(keys, keyOf("few", i+1))
	}
	filled := fakecache.New(t, cache.Options{}, keys)
	var firstKeys apikey.FirstKeys
	list := func(key v1alpha1.APIKey) []v1alpha1.APIKey {
		t.Helper()
		found, err := firstKeys.ListConflicting(t.Context(), filled, &key)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := list(keys[50]); len(found) != 1 || found[0].Name != "many-001" {
		t.Errorf("of a large group, %d keys are listed, the first is %s", len(found), found[0].Name)
	}
	if found := list(keys[101]); len(found) != 3 {
		t.Errorf("of a small group, %d keys are listed, want 3", len(found))
	}
	claimed := keys[50]
	claimed.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("claimed")}}
	older := keyOf("many", 0)
	for _, test := range []struct {
		event       string
		former, key *v1alpha1.APIKey
		want        bool
	}{
		{"a waiting key is changed", &keys[50], &keys[50], false},
		{"a waiting key is deleted", &keys[50], nil, false},
		{"a younger key is created", nil, new(keyOf("many", 200)), false},
		{"an older key is created", nil, &older, true},
		{"the first key is changed", &keys[0], &keys[0], true},
		{"the first key is deleted", &keys[0], nil, true},
		{"a waiting key claims a hash", &keys[50], &claimed, true},
		{"a key of a small group is changed", &keys[101], &keys[101], true},
	} {
		list(keys[50])
		if got := firstKeys.Invalidate(test.former, test.key); got != test.want {
			t.Errorf("when %s, the first key may have changed: %t, want %t", test.event, got, test.want)
		}
	}
}

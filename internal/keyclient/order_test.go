// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

func TestCompareCreation_IsByTimeThenAnnotationThenNameThenNamespace(t *testing.T) {
	key := func(second int, annotation, namespace, name string) *v1alpha1.APIKey {
		k := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, CreationTimestamp: metav1.Date(2026, 1, 1, 0, 0, second, 0, time.UTC),
		}}
		if annotation != "" {
			k.Annotations = map[string]string{"keys.squirrel.dev/created-at": annotation}
		}
		return k
	}
	ordered := []*v1alpha1.APIKey{
		key(1, "2026-01-01T00:00:09.5Z", "shop", "z"), // by a client whose clock is ahead
		key(2, "", "shop", "b"),
		key(2, "no time", "shop", "c"),
		key(2, "2026-01-01T00:00:01.9Z", "shop", "y"),
		key(2, "2026-01-01T00:00:02.12Z", "shop", "x"),
		key(2, "2026-01-01T00:00:02.120000001Z", "shop", "a"),
		key(2, "2026-01-01T01:00:02.2+01:00", "shop", "a"),
		key(3, "2026-01-01T00:00:02Z", "bank", "a"),
		key(3, "2026-01-01T00:00:02Z", "shop", "a"),
	}
	for range 20 {
		shuffled := slices.Clone(ordered)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		slices.SortFunc(shuffled, keyclient.CompareCreation)
		if diff := cmp.Diff(ordered, shuffled); diff != "" {
			t.Fatalf("the order (-want +got):\n%s", diff)
		}
	}
}

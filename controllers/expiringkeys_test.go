// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/fakecache"
)

// expiringKey returns an issued key that expires then.
func expiringKey(name string, at time.Time) v1alpha1.APIKey {
	key := v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: "1"}}
	key.Spec = v1alpha1.APIKeySpec{AppName: name, ReadAccess: true, Active: new(true), ExpiresAt: new(metav1.NewTime(at))}
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: "sha256:" + strings.Repeat("0", 64), NotBefore: new(metav1.NewTime(at.Add(-90 * day)))}}
	return key
}

func TestExpiringKeys_CountsTheAcceptedKeysOfTheCache(t *testing.T) {
	now := time.Now()
	keys := []v1alpha1.APIKey{
		expiringKey("expired", now.Add(-time.Hour)),
		expiringKey("in-an-hour", now.Add(time.Hour)),
		expiringKey("in-two-days", now.Add(2*day)),
		expiringKey("in-a-week", now.Add(7*day-time.Hour)),
		expiringKey("in-two-weeks", now.Add(14*day)),
		expiringKey("in-two-months", now.Add(60*day)),
	}
	for name, change := range map[string]func(*v1alpha1.APIKey){
		"never":       func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = nil },
		"deactivated": func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) },
		"ended":       func(key *v1alpha1.APIKey) { key.Status.DeactivatedAt = new(metav1.NewTime(now)) },
		"pending":     func(key *v1alpha1.APIKey) { key.Status.Tokens = nil },
		"claimed":     func(key *v1alpha1.APIKey) { key.Status.Tokens[0].NotBefore = nil },
		"deleted":     func(key *v1alpha1.APIKey) { key.DeletionTimestamp = new(metav1.NewTime(now)) },
	} {
		key := expiringKey(name, now.Add(time.Hour))
		change(&key)
		keys = append(keys, key)
	}
	counted := newExpiringKeys()
	framework.Must(t, counted.watch(t.Context(), fakecache.New(t, CacheOptions(), keys)))
	framework.Eventually(t, "the keys are counted", func() bool { return counted.count(now)[2] == 4 })
	if diff := cmp.Diff(map[string]float64{"1d": 1, "7d": 3, "30d": 4}, scrape(t, counted)); diff != "" {
		t.Errorf("apikey_expiring_keys (-want +got):\n%s", diff)
	}
}

// scrape returns the values of the metric by their label.
func scrape(t testing.TB, counted *expiringKeys) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(counted)
	families, err := registry.Gather()
	framework.Must(t, err)
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			values[metric.GetLabel()[0].GetValue()] = metric.GetGauge().GetValue()
		}
	}
	return values
}

func TestExpiringKeys_FollowsTheKeysAndTheTime(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	counted := newExpiringKeys()
	key := expiringKey("frontend", now.Add(40*day))
	for _, step := range []struct {
		event string
		after time.Duration
		apply func()
		want  []int
	}{
		{"added", 0, func() { counted.update(&key) }, []int{0, 0, 0}},
		{"a second before the window begins", 10*day - time.Second, func() {}, []int{0, 0, 0}},
		{"30 days before", 10 * day, func() {}, []int{0, 0, 1}},
		{"7 days before", 33 * day, func() {}, []int{0, 1, 1}},
		{"1 day before", 39 * day, func() {}, []int{1, 1, 1}},
		{"a second before", 40*day - time.Second, func() {}, []int{1, 1, 1}},
		{"expired", 40 * day, func() {}, []int{0, 0, 0}},
		{"extended", 40 * day, func() { key.Spec.ExpiresAt.Time = now.Add(45 * day); counted.update(&key) }, []int{0, 1, 1}},
		{"deactivated", 40 * day, func() { key.Spec.Active = new(false); counted.update(&key) }, []int{0, 0, 0}},
		{"created again", 40 * day, func() { key.Spec.Active = nil; counted.update(&key) }, []int{0, 1, 1}},
		{"deleted", 40 * day, func() { counted.remove(&key) }, []int{0, 0, 0}},
		{"created a third time", 40 * day, func() { counted.update(&key) }, []int{0, 1, 1}},
		{"deleted while the watch was interrupted", 40 * day,
			func() { counted.remove(toolscache.DeletedFinalStateUnknown{Key: "shop/frontend"}) }, []int{0, 0, 0}},
	} {
		step.apply()
		if diff := cmp.Diff(step.want, counted.count(now.Add(step.after))); diff != "" {
			t.Errorf("%s: the counts are (-want +got):\n%s", step.event, diff)
		}
	}
	if len(counted.expiresAt) != 0 {
		t.Errorf("%d keys are left", len(counted.expiresAt))
	}
}

// BenchmarkExpiringKeys scrapes the metric of 100 000 keys that expire at the same time.
func BenchmarkExpiringKeys(b *testing.B) {
	keys := make([]v1alpha1.APIKey, 100_000)
	expiry := time.Now().Add(time.Hour)
	for i := range keys {
		keys[i] = expiringKey(fmt.Sprint("key-", i), expiry)
	}
	counted := newExpiringKeys()
	framework.Must(b, counted.watch(b.Context(), fakecache.New(b, CacheOptions(), keys)))
	framework.Eventually(b, "the keys are counted", func() bool { return counted.count(time.Now())[0] == len(keys) })
	b.ReportAllocs()
	for b.Loop() {
		if scrape(b, counted)["1d"] != float64(len(keys)) {
			b.Fatal("the metric does not count each key")
		}
	}
}

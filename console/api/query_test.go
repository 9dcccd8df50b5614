// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

func TestFilter_SelectsUnusedAndExpiringKeys(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Unix(2_000_000_000, 0)
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	never := []v1alpha1.TokenRecord{{NotBefore: at(-100 * day)}}
	for name, c := range map[string]struct {
		query  string
		spec   v1alpha1.APIKeySpec
		tokens []v1alpha1.TokenRecord
		want   bool
	}{
		"used exactly then":            {"unused_for=90d", v1alpha1.APIKeySpec{}, []v1alpha1.TokenRecord{{NotBefore: at(-99 * day), LastUsedAt: at(-90 * day)}}, true},
		"used a second later":          {"unused_for=90d", v1alpha1.APIKeySpec{}, []v1alpha1.TokenRecord{{NotBefore: at(-99 * day), LastUsedAt: at(-90*day + time.Second)}}, false},
		"never used":                   {"unused_for=90d", v1alpha1.APIKeySpec{}, never, true},
		"never used, issued later":     {"unused_for=101d", v1alpha1.APIKeySpec{}, never, false},
		"only a superseded one used":   {"unused_for=90d", v1alpha1.APIKeySpec{}, []v1alpha1.TokenRecord{never[0], {NotBefore: at(-200 * day), NotAfter: at(day), LastUsedAt: at(-day)}}, false},
		"rotated later":                {"unused_for=90d", v1alpha1.APIKeySpec{}, []v1alpha1.TokenRecord{{NotBefore: at(-day)}, {NotBefore: at(-200 * day), NotAfter: at(day)}}, false},
		"unused, deactivated":          {"unused_for=90d", v1alpha1.APIKeySpec{Active: new(false)}, never, false},
		"unused, expired":              {"unused_for=90d", v1alpha1.APIKeySpec{ExpiresAt: at(0)}, never, false},
		"not issued":                   {"unused_for=90d", v1alpha1.APIKeySpec{}, nil, false},
		"a claim":                      {"unused_for=90d", v1alpha1.APIKeySpec{}, []v1alpha1.TokenRecord{{ClaimedAt: at(-100 * day)}}, false},
		"the longest time":             {"unused_for=292y", v1alpha1.APIKeySpec{}, never, false},
		"expires exactly then":         {"expires_within=1d12h", v1alpha1.APIKeySpec{ExpiresAt: at(36 * time.Hour)}, never, true},
		"expires a second later":       {"expires_within=1d12h", v1alpha1.APIKeySpec{ExpiresAt: at(36*time.Hour + time.Second)}, never, false},
		"never expires":                {"expires_within=292y", v1alpha1.APIKeySpec{}, never, false},
		"expires soon, deactivated":    {"expires_within=30d", v1alpha1.APIKeySpec{ExpiresAt: at(day), Active: new(false)}, never, false},
		"expires soon, not issued":     {"expires_within=30d", v1alpha1.APIKeySpec{ExpiresAt: at(day)}, nil, false},
		"expired":                      {"expires_within=30d", v1alpha1.APIKeySpec{ExpiresAt: at(0)}, never, false},
		"unused and expires soon":      {"unused_for=90d&expires_within=30d&active_only=true", v1alpha1.APIKeySpec{ExpiresAt: at(day)}, never, true},
		"expires soon, but used":       {"unused_for=101d&expires_within=30d", v1alpha1.APIKeySpec{ExpiresAt: at(day)}, never, false},
		"unused, but expires too late": {"unused_for=90d&expires_within=1h", v1alpha1.APIKeySpec{ExpiresAt: at(day)}, never, false},
	} {
		t.Run(name, func(t *testing.T) {
			query, failure := parseQuery(c.query, "active_only", "unused_for", "expires_within")
			if failure != nil {
				t.Fatalf("the response is %s", failure.Body)
			}
			key := &v1alpha1.APIKey{Spec: c.spec, Status: v1alpha1.APIKeyStatus{Tokens: c.tokens}}
			if got := query.filter(now)(newEntry(key)); got != c.want {
				t.Errorf("selected: %t, want %t", got, c.want)
			}
		})
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

func TestLastUse(t *testing.T) {
	issuedAt := func(at int64) func(*v1alpha1.TokenRecord) {
		return func(r *v1alpha1.TokenRecord) { r.NotBefore = new(metav1.Unix(at, 0)) }
	}
	usedAt := func(at int64) func(*v1alpha1.TokenRecord) {
		return func(r *v1alpha1.TokenRecord) { r.LastUsedAt = new(metav1.Unix(at, 0)) }
	}
	for name, test := range map[string]struct {
		tokens                []v1alpha1.TokenRecord
		lastUsed, unusedSince int64 // 0 for nil
	}{
		"no token":                          {},
		"a claim":                           {[]v1alpha1.TokenRecord{recordOf(hashA, claimedAt)}, 0, 0},
		"never used":                        {[]v1alpha1.TokenRecord{recordOf(hashA, issuedAt(10))}, 0, 10},
		"used":                              {[]v1alpha1.TokenRecord{recordOf(hashA, issuedAt(10), usedAt(20))}, 20, 20},
		"used before it was declared again": {[]v1alpha1.TokenRecord{recordOf(hashA, issuedAt(30), usedAt(20))}, 20, 30},
		"only the superseded token is used": {
			[]v1alpha1.TokenRecord{recordOf(hashA, issuedAt(10)), recordOf(hashB, issuedAt(5), notAfter, usedAt(20))}, 20, 20,
		},
		"the superseded token was used before the rotation": {
			[]v1alpha1.TokenRecord{recordOf(hashA, issuedAt(10)), recordOf(hashB, issuedAt(5), notAfter, usedAt(6))}, 6, 10,
		},
		"both are used": {
			[]v1alpha1.TokenRecord{recordOf(hashA, issuedAt(10), usedAt(30)), recordOf(hashB, issuedAt(5), notAfter, usedAt(20))}, 30, 30,
		},
		"an accepted claim is used": {
			[]v1alpha1.TokenRecord{recordOf(hashA, issuedAt(10), usedAt(20)), recordOf(hashB, issuedAt(30), claimedAt, usedAt(31))}, 31, 31,
		},
	} {
		t.Run(name, func(t *testing.T) {
			key := &v1alpha1.APIKey{Status: v1alpha1.APIKeyStatus{Tokens: test.tokens}}
			for function, result := range map[string]struct {
				got  *metav1.Time
				want int64
			}{
				"LastUsed": {apikey.LastUsed(key), test.lastUsed}, "UnusedSince": {apikey.UnusedSince(key), test.unusedSince},
			} {
				if (result.got != nil) != (result.want != 0) || (result.got != nil && result.got.Unix() != result.want) {
					t.Errorf("%s = %v, want %d", function, result.got, result.want)
				}
			}
		})
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

// asked says in one expression what cutTarget does.
var asked = regexp.MustCompile(`^((?i:https?)://[^/?]*)?/auth/([^/?]*)(/([^/?]*)(/)?)?`)

func FuzzCutTarget(f *testing.F) {
	for _, seed := range []string{
		"/auth/envoy/shop/some/path?query", "/auth/nginx/shop", "/auth//shop", "/auth/envoy/../other", "/auth/envoy/%73hop/", "/auth", "",
		"http://auth/auth/forward/shop", "http://auth?/auth/forward/shop", "auth:443", "*", "/auth/envoy/shop#/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, requestURI string) {
		var want target
		if parts := asked.FindStringSubmatch(requestURI); parts != nil {
			want = target{protocol: parts[2], namespace: parts[4], more: parts[5] != ""}
		}
		if got := cutTarget(requestURI); got != want {
			t.Fatalf("%q was cut to %+v, want %+v", requestURI, got, want)
		}
	})
}

// Kubernetes names its namespaces by the same rule.
func FuzzIsDNSLabel(f *testing.F) {
	for _, seed := range []string{"shop", "a", "-", "a-", "-a", "a-b", "A", "", "a.b", "a_b", "é", strings.Repeat("n", 63), "a\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		problems := validation.IsDNS1123Label(name)
		if isDNSLabel(name) != (len(problems) == 0) {
			t.Fatalf("isDNSLabel(%q) is %t; Kubernetes says %q", name, isDNSLabel(name), problems)
		}
	})
}

func FuzzPercentEncode(f *testing.F) {
	for _, seed := range []string{"Frontend App", "100%", "☃ and 🦀", "مرحبا", "a\x00b\xff", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		encoded := percentEncode(text)
		if decoded, err := url.PathUnescape(encoded); err != nil || decoded != text {
			t.Fatalf("%q became %q, which is %q again (%v)", text, encoded, decoded, err)
		}
		if strings.Trim(encoded, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%") != "" {
			t.Fatalf("%q became %q", text, encoded)
		}
	})
}

func TestAppNamesArePercentEncoded(t *testing.T) {
	for name, want := range map[string]string{
		"Frontend App":       "Frontend%20App",
		"AZaz09-._~":         "AZaz09-._~",
		"a/b+c=d&e@f:g;h,i%": "a%2Fb%2Bc%3Dd%26e%40f%3Ag%3Bh%2Ci%25",
		"Größe":              "Gr%C3%B6%C3%9Fe",
		"🦀":                  "%F0%9F%A6%80",
	} {
		if got := percentEncode(name); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
}

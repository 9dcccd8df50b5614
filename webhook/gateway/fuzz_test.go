// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

// targetPattern matches what parseTarget parses.
var targetPattern = regexp.MustCompile(`^((?i:https?)://[^/?]*)?/auth/([^/?]*)(/([^/?]*)(/)?)?`)

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{
		"/auth/envoy/shop/some/path?query", "/auth/nginx/shop", "/auth//shop", "/auth/envoy/../other", "/auth/envoy/%73hop/", "/auth", "",
		"http://auth/auth/forward/shop", "http://auth?/auth/forward/shop", "auth:443", "*", "/auth/envoy/shop#/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, requestURI string) {
		var want target
		if parts := targetPattern.FindStringSubmatch(requestURI); parts != nil {
			want = target{protocol: parts[2], namespace: parts[4], hasClientPath: parts[5] != ""}
		}
		if got := parseTarget(requestURI); got != want {
			t.Fatalf("%q was parsed to %+v, want %+v", requestURI, got, want)
		}
	})
}

// Kubernetes validates the names of namespaces by the same rule.
func FuzzIsDNSLabel(f *testing.F) {
	for _, seed := range []string{"shop", "a", "-", "a-", "-a", "a-b", "A", "", "a.b", "a_b", "é", strings.Repeat("n", 63), "a\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		problems := validation.IsDNS1123Label(name)
		if isDNSLabel(name) != (len(problems) == 0) {
			t.Fatalf("isDNSLabel(%q) is %t; Kubernetes returns %q", name, isDNSLabel(name), problems)
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

// FuzzParseReview splits the body in three, so that one part changes while the rest stays a TokenReview.
func FuzzParseReview(f *testing.F) {
	const v1 = `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":`
	for _, seed := range [][3]string{
		{v1, `"sq_read"`, "}}"},
		{v1, `"\u0073q_\ud800\n\"` + "\xff" + `"`, `,"audiences":["a"]},"status":{"user":{}},"metadata":{"creationTimestamp":null}}`},
		{v1, `"a","token":"b"`, "}}"},
		{v1, `"a","Token":"b","to\u006ben":null`, `},"SPEC":{},"kind":"TokenReview"}`},
		{v1, "[null]", "}}{}"},
		{`{"spec":{"token":`, `"a"`, `},"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1beta1"}`},
		{`{"spec":null,"kind":7,"apiVersion":`, "[{}]", "}"},
		{"", "null", ""},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, before, token, after []byte) {
		body := slices.Concat(before, token, after)
		review, wrong := parseReview(body)
		read, plain := readReviewNaively(body)
		switch {
		case wrong == nil && (review.APIVersion != read[".apiVersion"] || review.Kind != read[".kind"] || review.Spec.Token != read[".spec.token"]):
			t.Fatalf("%q was read as %v of %v with the token %q, want %v", body, review.Kind, review.APIVersion, review.Spec.Token, read)
		case wrong == nil && read[".kind"] != "TokenReview":
			t.Fatalf("%q was parsed as a TokenReview", body)
		case wrong != nil && plain && read[".kind"] == "TokenReview" && read[".apiVersion"] == "authentication.k8s.io/v1":
			t.Fatalf("%q was rejected: %s", body, wrong.message)
		}
	})
}

// readReviewNaively returns the strings of a JSON object by their path. plain is true if the object has only the fields of a TokenReview,
// each at most once. It returns nothing for another JSON value.
func readReviewNaively(body []byte) (read map[string]string, plain bool) {
	if !json.Valid(body) {
		return nil, false
	}
	read, plain = map[string]string{}, true
	decoder := json.NewDecoder(bytes.NewReader(body))
	next := func() json.Token {
		token, err := decoder.Token()
		if err != nil {
			panic(err) // valid JSON
		}
		return token
	}
	var object func(path string)
	object = func(path string) {
		for decoder.More() {
			at := path + "." + strings.ReplaceAll(next().(string), ".", "..")
			_, twice := read[at]
			plain = plain && !twice && slices.Contains([]string{".apiVersion", ".kind", ".spec", ".spec.token"}, at)
			switch value := next().(type) {
			case string:
				plain = plain && at != ".spec"
				read[at] = value
			case json.Delim:
				plain = plain && at == ".spec" && value == '{'
				read[at] = ""
				if value == '{' {
					object(at)
				} else {
					for depth := 1; depth > 0; {
						switch next() {
						case json.Delim('['), json.Delim('{'):
							depth++
						case json.Delim(']'), json.Delim('}'):
							depth--
						}
					}
				}
			default:
				plain = false
			}
		}
		next()
	}
	if next() != json.Delim('{') {
		return nil, false
	}
	object("")
	return read, plain
}

func FuzzTokenOf(f *testing.F) {
	for _, seed := range []string{
		"token=sq_read", "token=sq_read&token_type_hint=access_token", "token=a&token=b", "%74oken=a+b%2B", "token=%", "token;a=b", "&&=&token", "a=%zz&token=a",
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, form, token string) {
		if got, wrong := tokenOf(form); got != readFormNaively(form) || (wrong == nil) != (got != "") {
			t.Fatalf("the token of %q is %q, want %q", form, got, readFormNaively(form))
		}
		written := url.Values{"token": {token}, "token_type_hint": {form}}.Encode()
		if got, _ := tokenOf(written); got != token {
			t.Fatalf("the token of %q is %q, want %q", written, got, token)
		}
	})
}

// readFormNaively returns the token of a form, or "" if it has none or several, or is not a form.
func readFormNaively(form string) (token string) {
	pairs, tokens := strings.Split(form, "&"), 0
	if strings.Contains(form, ";") || len(pairs) > 10000 {
		return ""
	}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		name, wrongName := url.PathUnescape(strings.ReplaceAll(name, "+", " "))
		value, wrongValue := url.PathUnescape(strings.ReplaceAll(value, "+", " "))
		if wrongName != nil || wrongValue != nil {
			return ""
		}
		if name == "token" {
			tokens++
			token = value
		}
	}
	if tokens != 1 {
		return ""
	}
	return token
}

func TestPercentEncode(t *testing.T) {
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

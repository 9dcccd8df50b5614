// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package ui_test

import (
	"cmp"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/console/ui"
)

// handedOn is what the API answers in these tests.
const handedOn = "the API"

var handler = ui.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, handedOn) }))

// ask asks as whom the Accept header says.
func ask(method, path string, accept ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, nil)
	request.Header["Accept"] = accept
	got := httptest.NewRecorder()
	handler.ServeHTTP(got, request)
	return got
}

const chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"

func TestBrowsersGetThePageAndProgramsTheAPI(t *testing.T) {
	cases := []struct {
		name, method, path string
		accept             []string
		page               bool
	}{
		{"a browser", "GET", "/", []string{chromium}, true},
		{"a browser's HEAD", "HEAD", "/", []string{chromium}, true},
		{"HTML by name", "GET", "/", []string{"text/html"}, true},
		{"HTML in a second header", "GET", "/", []string{"image/png", "text/html; q=0.5"}, true},
		{"HTML rather than JSON", "GET", "/", []string{"application/json;q=0.8, text/html"}, true},
		{"curl", "GET", "/", []string{"*/*"}, false},
		{"no preference", "GET", "/", nil, false},
		{"JSON by name", "GET", "/", []string{"application/json"}, false},
		{"JSON as much as HTML", "GET", "/", []string{"text/html, application/json"}, false},
		{"HTML refused", "GET", "/", []string{"text/html;q=0"}, false},
		{"a quality that is none", "GET", "/", []string{"text/html;q=x"}, false},
		{"what is no media type", "GET", "/", []string{"text/html/x,;;"}, false},
		{"another method", "POST", "/", []string{chromium}, false},
		{"another method for a file", "POST", "/assets/app.js", []string{chromium}, false},
		{"the API for a browser", "GET", "/api/v1/api-keys", []string{chromium}, false},
		{"no file", "GET", "/assets/none.js", []string{chromium}, false},
		{"the directory", "GET", "/assets/", []string{chromium}, false},
		{"the page by the name of its file", "GET", "/index.html", []string{chromium}, false},
		{"this package's source", "GET", "/page.go", []string{chromium}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := ask(c.method, c.path, c.accept...)
			if isPage := got.Body.String() != handedOn; isPage != c.page {
				t.Errorf("the page is the answer: %t", isPage)
			}
			if vary := got.Header().Get("Vary"); c.path == "/" && vary != "Accept" {
				t.Errorf("Vary is %q, so that a cache may give a program the page", vary)
			}
		})
	}
}

func TestEachFileIsServedAsWhatItIsAndGuarded(t *testing.T) {
	paths := map[string]string{"/": "text/html; charset=utf-8"}
	for extension, mediaType := range map[string]string{
		".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	} {
		found, err := fs.Glob(os.DirFS("."), "assets/*"+extension)
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s (%v)", extension, err)
		}
		for _, name := range found {
			paths["/"+name] = mediaType
		}
	}
	for path, mediaType := range paths {
		t.Run(path, func(t *testing.T) {
			got := ask("GET", path, chromium)
			content, err := os.ReadFile(cmp.Or(path[1:], "index.html"))
			if err != nil || got.Code != http.StatusOK || got.Body.String() != string(content) {
				t.Fatalf("answered %d with %d bytes; the file has %d (%v)", got.Code, got.Body.Len(), len(content), err)
			}
			for name, want := range map[string]string{
				"Content-Type":                 mediaType,
				"Cache-Control":                "no-store",
				"Cross-Origin-Opener-Policy":   "same-origin",
				"Cross-Origin-Resource-Policy": "same-origin",
				"Referrer-Policy":              "no-referrer",
				"X-Content-Type-Options":       "nosniff",
				"X-Frame-Options":              "DENY",
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
					"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
			} {
				if got := got.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestThePageNamesAllItsModules keeps the page from loading its modules one after the other.
func TestThePageNamesAllItsModules(t *testing.T) {
	html := ask("GET", "/", chromium).Body.String()
	modules, err := fs.Glob(os.DirFS("."), "assets/*.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range modules {
		if strings.Count(html, `"`+module+`"`) != 1 {
			t.Errorf("index.html does not name %s", module)
		}
	}
}

func TestNothingMakesMarkupOfText(t *testing.T) {
	sinks := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTMLUnsafe|\beval\b|new Function|createContextualFragment`)
	modules, err := fs.Glob(os.DirFS("."), "assets/*.js")
	if err != nil || len(modules) == 0 {
		t.Fatalf("no modules (%v)", err)
	}
	for _, module := range modules {
		content, err := os.ReadFile(module)
		if err != nil {
			t.Fatal(err)
		}
		if found := sinks.Find(content); found != nil {
			t.Errorf("%s has %s", module, found)
		}
	}
}

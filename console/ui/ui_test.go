// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package ui_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
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

// apiResponse is the response of the API in these tests.
const apiResponse = "the API"

var handler = ui.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, apiResponse) }))

// request returns the response to a request with an Accept header.
func request(method, path string, accept ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Header["Accept"] = accept
	got := httptest.NewRecorder()
	handler.ServeHTTP(got, r)
	return got
}

const chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"

func TestHandler_ServesThePageToBrowsersAndTheAPIToOtherClients(t *testing.T) {
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
		{"an invalid quality", "GET", "/", []string{"text/html;q=x"}, false},
		{"an invalid media type", "GET", "/", []string{"text/html/x,;;"}, false},
		{"another method", "POST", "/", []string{chromium}, false},
		{"another method for a file", "POST", "/assets/app.js", []string{chromium}, false},
		{"the API for a browser", "GET", "/api/v1/api-keys", []string{chromium}, false},
		{"an unknown file", "GET", "/assets/none.js", []string{chromium}, false},
		{"the directory", "GET", "/assets/", []string{chromium}, false},
		{"the page by the name of its file", "GET", "/index.html", []string{chromium}, false},
		{"this package's source", "GET", "/ui.go", []string{chromium}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := request(c.method, c.path, c.accept...)
			if isPage := got.Body.String() != apiResponse; isPage != c.page {
				t.Errorf("the response is the page: %t", isPage)
			}
			if vary := got.Header().Get("Vary"); c.path == "/" && vary != "Accept" {
				t.Errorf("Vary is %q, so a cache may return the page to other clients", vary)
			}
		})
	}
}

func TestHandler_ServesFilesWithMediaTypesAndSecurityHeaders(t *testing.T) {
	scripts := regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindAllStringSubmatch(request("GET", "/", chromium).Body.String(), -1)
	if len(scripts) != 1 {
		t.Fatalf("the page has %d inline scripts; its Content-Security-Policy allows one", len(scripts))
	}
	hash := sha256.Sum256([]byte(scripts[0][1]))
	scriptHash := "sha256-" + base64.StdEncoding.EncodeToString(hash[:])
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
			got := request("GET", path, chromium)
			content, err := os.ReadFile(cmp.Or(path[1:], "index.html"))
			if err != nil || got.Code != http.StatusOK || got.Body.String() != string(content) {
				t.Fatalf("the response is %d with %d bytes; the file has %d (%v)", got.Code, got.Body.Len(), len(content), err)
			}
			for name, want := range map[string]string{
				"Content-Type":                 mediaType,
				"Cache-Control":                "no-store",
				"Cross-Origin-Opener-Policy":   "same-origin",
				"Cross-Origin-Resource-Policy": "same-origin",
				"Referrer-Policy":              "no-referrer",
				"X-Content-Type-Options":       "nosniff",
				"X-Frame-Options":              "DENY",
				"Content-Security-Policy": "default-src 'none'; script-src 'self' '" + scriptHash + "'; " +
					"style-src 'self'; img-src 'self'; connect-src 'self'; " +
					"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
			} {
				if got := got.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// The browser would otherwise load the modules one after the other.
func TestPage_PreloadsAllModules(t *testing.T) {
	html := request("GET", "/", chromium).Body.String()
	modules, err := fs.Glob(os.DirFS("."), "assets/*.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range modules {
		if strings.Count(html, `"`+module+`"`) != 1 {
			t.Errorf("index.html does not preload %s", module)
		}
	}
}

func TestPage_CreatesNoMarkupFromText(t *testing.T) {
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
			t.Errorf("%s uses %s", module, found)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ui serves the web console: a page that manages keys with the REST API. Browsers get the page at the root path, where other
// clients get the description of the API.
package ui

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
)

//go:embed index.html assets
var files embed.FS

//go:embed index.html
var page string

var mediaTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// securityHeaders allow the page to run its own scripts and to send requests to its own origin. They forbid all else: other inline code
// than that of index.html, markup from text, frames around the page, and copies of it in a cache.
var securityHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self' " + hashOfInlineScript(page) + "; " +
		"style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"Cache-Control":                "no-store",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
}

// Handler returns a handler that serves the files of the page to browsers, and passes all other requests to the API.
func Handler(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		isFile := strings.HasPrefix(name, "assets/") && exists(name)
		if r.URL.Path == "/" { // the path of the page, and of the description of the API
			name, isFile = "index.html", prefersHTML(r.Header["Accept"])
			w.Header().Add("Vary", "Accept")
		}
		if !isFile || r.Method != http.MethodGet && r.Method != http.MethodHead {
			api.ServeHTTP(w, r)
			return
		}
		for name, value := range securityHeaders {
			w.Header().Set(name, value)
		}
		w.Header().Set("Content-Type", mediaTypes[path.Ext(name)])
		http.ServeFileFS(w, r, files, name) //nolint:gosec // files holds the files of the page only
	})
}

var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// hashOfInlineScript returns the hash by which a Content-Security-Policy allows the script of a page.
func hashOfInlineScript(page string) string {
	hash := sha256.Sum256([]byte(inlineScript.FindStringSubmatch(page)[1]))
	return "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
}

func exists(name string) bool {
	info, err := fs.Stat(files, name)
	return err == nil && !info.IsDir()
}

// prefersHTML reports whether a client accepts text/html by name, as browsers do, and prefers it to JSON.
func prefersHTML(accept []string) bool {
	html, json := 0.0, 0.0
	for one := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		mediaType, parameters, err := mime.ParseMediaType(one)
		if err != nil {
			continue
		}
		quality := 1.0
		if q, given := parameters["q"]; given {
			quality, _ = strconv.ParseFloat(q, 64) // an invalid number is 0: not acceptable
		}
		switch mediaType {
		case "text/html":
			html = quality
		case "application/json":
			json = quality
		}
	}
	return html > json
}

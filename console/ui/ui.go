// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ui is the web console: one page, which manages keys by the REST API alone. Browsers are given it at the path where programs are
// told about the API.
package ui

import (
	"embed"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed index.html assets
var files embed.FS

// types are the media types of the files.
var types = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// securityHeaders let the page run its own scripts and ask its own origin, and nothing else: no inline code, no markup made of text, no
// frame around it, no copy of it in a cache.
var securityHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"Cache-Control":                "no-store",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
}

// root is where the page is, and what programs are told about the API.
const root = "/"

// file is a file as it is sent.
type file struct {
	mediaType string
	content   []byte
}

// Handler returns a handler that serves the page and its files to browsers, and hands all other requests to the API.
func Handler(api http.Handler) http.Handler {
	served := readFiles()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found, ours := served[r.URL.Path]
		ours = ours && (r.Method == http.MethodGet || r.Method == http.MethodHead)
		if r.URL.Path == root {
			w.Header().Add("Vary", "Accept")
			ours = ours && prefersPage(r.Header["Accept"])
		}
		if !ours {
			api.ServeHTTP(w, r)
			return
		}
		for name, value := range securityHeaders {
			w.Header().Set(name, value)
		}
		w.Header().Set("Content-Type", found.mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(found.content)))
		_, _ = w.Write(found.content) // whoever asked has gone, or sent HEAD
	})
}

// readFiles returns the files by their paths in URLs.
func readFiles() map[string]file {
	served := map[string]file{}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := files.ReadFile(name)
		served[root+strings.TrimSuffix(name, "index.html")] = file{mediaType: types[path.Ext(name)], content: content}
		return err
	})
	if err != nil {
		panic(err) // they are part of this program
	}
	return served
}

// prefersPage says whether a client asks for HTML by its name, as browsers do, and not rather for JSON.
func prefersPage(accept []string) bool {
	html, json := 0.0, 0.0
	for one := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		mediaType, parameters, err := mime.ParseMediaType(one)
		if err != nil {
			continue
		}
		quality := 1.0
		if q, given := parameters["q"]; given {
			quality, _ = strconv.ParseFloat(q, 64) // 0, which is not acceptable, if it is no number
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

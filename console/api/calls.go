// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"slices"
	"strings"

	"squirrel.dev/apikey-operator/internal/envelope"
)

// call is one thing that the API can be asked to do.
type call struct {
	// name of the call in logs and metrics, and its operationId in openapi.json.
	name string
	// method of the call. HEAD is a GET whose answer has no body.
	method string
	// path of the call, below a base unless it is the root.
	path string
	// open says that no key is needed.
	open bool
	// manages says that the call creates or ends keys, which not every key with write access may do.
	manages bool
	// answer answers one request.
	answer func(a *API, w http.ResponseWriter, r *request) *envelope.Response
}

const rootPath = "/"

// bases are what the paths of all calls but that of the root are below. The second is where clients of the Squirrel backend call.
var bases = []string{"/api/v1", "/v1"}

var calls = []call{
	{name: "describe", method: http.MethodGet, path: rootPath, open: true, answer: (*API).describe},
	{name: "getHealth", method: http.MethodGet, path: "/health", open: true, answer: (*API).health},
	{name: "getOpenAPI", method: http.MethodGet, path: "/openapi.json", open: true, answer: (*API).openAPI},
	{name: "listKeys", method: http.MethodGet, path: "/api-keys", answer: (*API).list},
	{name: "createKey", method: http.MethodPost, path: "/api-keys", manages: true, answer: (*API).create},
	{name: "countKeys", method: http.MethodGet, path: "/api-keys/count", answer: (*API).count},
	{name: "deactivateKey", method: http.MethodDelete, path: "/api-keys/{id}", manages: true, answer: (*API).deactivate},
}

var (
	nothingThere = envelope.NewError(http.StatusNotFound,
		"There is nothing at this path: /api/v1/openapi.json says what there is.")
	noSuchMethod = "This path does not take this method: the Allow header says which it takes, and /api/v1/openapi.json what they do."
)

// route is what a method and a path lead to.
type route struct {
	// call is nil when there is none, and mistake then the answer to that.
	call    *call
	mistake *envelope.Response
	// open says that no key is needed to be told.
	open bool
	// id that the path names, if it is the path of a key.
	id string
}

func findRoute(method, path string) route {
	path, below := cutBase(path)
	found := route{open: !below, mistake: nothingThere}
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var allowed []string
	for i := range calls {
		c := &calls[i]
		id, ok := matches(c.path, path)
		if !ok || below == (c.path == rootPath) {
			continue
		}
		found.open = c.open
		if c.method == method {
			return route{call: c, open: c.open, id: id}
		}
		allowed = append(allowed, c.method)
		if c.method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	if allowed != nil {
		found.mistake = envelope.NewError(http.StatusMethodNotAllowed, noSuchMethod).With("Allow", strings.Join(allowed, ", "))
	}
	return found
}

// cutBase returns what a path has below a base, and whether it is below one.
func cutBase(path string) (rest string, below bool) {
	for _, base := range bases {
		if rest, ok := strings.CutPrefix(path, base); ok && (rest == "" || rest[0] == '/') {
			return rest, true
		}
	}
	return path, false
}

// matches says whether a path is that of a call, and which id it names. A call with an id comes after those without.
func matches(pattern, path string) (id string, ok bool) {
	before, _, named := strings.Cut(pattern, "{id}")
	if !named {
		return "", path == pattern
	}
	id, ok = strings.CutPrefix(path, before)
	return id, ok && id != "" && !strings.Contains(id, "/") && !slices.ContainsFunc(calls, func(c call) bool { return c.path == path })
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"squirrel.dev/apikey-operator/internal/envelope"
)

// route is an operation of the API.
type route struct {
	// name in logs and metrics; the operationId in openapi.json.
	name string
	// method of the route. A GET route serves HEAD too.
	method string
	// path of the route, as in the patterns of a ServeMux. It is relative to each base, unless it is the root.
	path string
	// open is true when no key is required. It is the same for all routes of a path.
	open bool
	// anyAccess is true when each valid key may use the route, whatever access it gives.
	anyAccess bool
	// manages is true when only [Managers] may use the route.
	manages bool
	// handle returns the response to a request.
	handle func(h *Handler, w http.ResponseWriter, r *request) *envelope.Response
}

const rootPath = "/"

// squirrelBase is the prefix of the paths of the Squirrel backend.
const squirrelBase = "/v1"

// bases are the prefixes of all paths but the root.
var bases = []string{"/api/v1", squirrelBase}

var routes = []*route{
	{name: "describe", method: http.MethodGet, path: rootPath, open: true, handle: (*Handler).describe},
	{name: "getHealth", method: http.MethodGet, path: "/health", open: true, handle: (*Handler).health},
	{name: "getOpenAPI", method: http.MethodGet, path: "/openapi.json", open: true, handle: (*Handler).openAPI},
	{name: "listKeys", method: http.MethodGet, path: "/api-keys", handle: (*Handler).list},
	{name: "createKey", method: http.MethodPost, path: "/api-keys", manages: true, handle: (*Handler).create},
	{name: "countKeys", method: http.MethodGet, path: "/api-keys/count", handle: (*Handler).count},
	{name: "getOwnKey", method: http.MethodGet, path: "/api-keys/self", anyAccess: true, handle: (*Handler).self},
	{name: "getKey", method: http.MethodGet, path: "/api-keys/{id}", handle: (*Handler).get},
	{name: "updateKey", method: http.MethodPatch, path: "/api-keys/{id}", manages: true, handle: (*Handler).update},
	{name: "rotateKey", method: http.MethodPost, path: "/api-keys/{id}/rotate", manages: true, handle: (*Handler).rotate},
	{name: "deactivateKey", method: http.MethodDelete, path: "/api-keys/{id}", manages: true, handle: (*Handler).deactivate},
}

var notFound = envelope.NewError(http.StatusNotFound, "This path does not exist: see /api/v1/openapi.json for the paths that do.")

const methodNotAllowed = "This path does not support this method: see the Allow header for the methods that it supports, and " +
	"/api/v1/openapi.json for what they do."

// newMux returns a ServeMux with an endpoint for each path, and for all paths that do not exist. The patterns have no methods: a DELETE of
// /api-keys/count would match the pattern DELETE /api-keys/{id}.
func (h *Handler) newMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/", h.endpoint(true))
	for _, base := range bases {
		mux.Handle(base, h.endpoint(false))
		mux.Handle(base+"/", h.endpoint(false))
	}
	byPath := map[string][]*route{}
	for _, r := range routes {
		byPath[r.path] = append(byPath[r.path], r)
	}
	for path, found := range byPath {
		endpoint := h.endpoint(found[0].open, found...)
		if path == rootPath {
			mux.Handle("/{$}", endpoint)
			continue
		}
		for _, base := range bases {
			mux.Handle(base+path, endpoint)
		}
	}
	return mux
}

// endpoint returns the handler of a path with these routes. Without any, the path does not exist.
func (h *Handler) endpoint(open bool, found ...*route) http.Handler {
	byMethod, noRoute := map[string]*route{}, notFound
	for _, r := range found {
		byMethod[r.method] = r
		if r.method == http.MethodGet {
			byMethod[http.MethodHead] = r
		}
	}
	if found != nil {
		allowed := strings.Join(slices.Sorted(maps.Keys(byMethod)), ", ")
		noRoute = envelope.NewError(http.StatusMethodNotAllowed, methodNotAllowed).With("Allow", allowed)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, &request{Request: r, route: byMethod[r.Method], noRoute: noRoute, open: open})
	})
}

// expectsCamelCase reports whether the client may be one of the Squirrel backend. Its responses have names in camelCase; its documentation
// has those in snake_case.
func (r *request) expectsCamelCase() bool { return strings.HasPrefix(r.URL.Path, squirrelBase+"/") }

// ServeHTTP responds to a request. A slash at the end of a path is ignored: clients lose the body of a request that is redirected. ServeMux
// would redirect paths with empty segments, which do not exist here, and paths with segments of dots, which may be IDs.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.ReplaceAll(r.URL.EscapedPath(), ".", "%2E")
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		below := slices.ContainsFunc(bases, func(base string) bool { return strings.HasPrefix(path, base+"/") })
		h.endpoint(!below).ServeHTTP(w, r)
		return
	}
	routed, location := *r, *r.URL
	if path != rootPath {
		path, location.Path = strings.TrimSuffix(path, "/"), strings.TrimSuffix(location.Path, "/")
	}
	location.RawPath, routed.URL = path, &location
	h.mux.ServeHTTP(w, &routed)
}

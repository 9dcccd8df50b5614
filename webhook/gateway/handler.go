// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// Options of the HTTP handler and of the gRPC service.
type Options struct {
	// InsufficientAccessStatus is the response to a valid key that lacks the access: 401, or 403 (RFC 6750, section 3.1).
	InsufficientAccessStatus int
	// Metrics count the checks.
	Metrics *Metrics
	// Log receives denials at debug level, and warnings about misconfigured gateways. It never receives a token or a URL.
	Log *slog.Logger
}

// NewHandler returns the handler of the paths under /auth/. It reads the request target as the client sent it, so do not put it behind
// an http.ServeMux, which cleans paths and redirects. The response to any other path is 404.
func NewHandler(authenticator *authn.Authenticator, options Options) http.Handler {
	endpoints, paths := make(map[string]*endpoint, len(protocols)), make([]string, len(protocols))
	for i, p := range protocols {
		endpoints[p.name] = &endpoint{
			protocol:  p,
			checker:   newChecker(p.name, authenticator, options),
			wrongPath: newConfigError(http.StatusNotFound, "No endpoint exists at this path. Use "+p.path+", "+namespaceHelp+p.pathHelp),
		}
		paths[i] = p.path
	}
	notFound := envelope.NewError(http.StatusNotFound,
		"No endpoint exists at this path. Use "+strings.Join(paths, " or ")+", "+namespaceHelp)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target := parseTarget(r.RequestURI)
		if e, ok := endpoints[target.protocol]; ok {
			e.serveTarget(w, r, target)
		} else {
			leaveBodyUnread(w, r)
			notFound.Write(w)
		}
	})
}

// endpoint serves one protocol.
type endpoint struct {
	protocol
	checker   *checker
	wrongPath *configError
}

func (e *endpoint) serveTarget(w http.ResponseWriter, r *http.Request, target target) {
	start := time.Now()
	if !e.readsBody {
		leaveBodyUnread(w, r)
	}
	var decision authn.Decision
	if isDNSLabel(target.namespace) && target.hasClientPath == e.appendsPath {
		decision = e.serve(e.checker, w, r, target.namespace)
	} else {
		decision = e.checker.reject(w, e.wrongPath)
	}
	e.checker.metrics.observe(decision, time.Since(start))
}

// leaveBodyUnread closes the connection after the response if the request has a body. Otherwise net/http would read the body before it
// responds, to reuse the connection, and a gateway may announce a body that it does not send.
func leaveBodyUnread(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		w.Header()["Connection"] = connectionClose
	}
}

// connectionClose is shared by all responses. Its capacity is 1, so that append copies it.
var connectionClose = []string{"close"}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gateway answers the gateways that ask whether the API key of a request is good and may do what the request does. Each
// protocol has a file, which only translates to and from authn.
package gateway

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// protocol is a way to ask over HTTP.
type protocol struct {
	// name of the protocol in paths, metrics and logs.
	name string
	// path that is asked, as a person writes it.
	path string
	// appendsPath says that the gateway appends the client's path: the namespace in the path must be followed by one, else by nothing.
	appendsPath bool
	// pathHelp adds to what is said of a wrong path.
	pathHelp string
	// readsBody says that the question is in the request's body.
	readsBody bool
	// answer answers one request about the keys of a namespace, and returns the decision, or malformed.
	answer func(d *desk, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision
}

var protocols = []protocol{envoy, nginx, nginxGatewayFabric, forward, tokenReview, introspection}

// Options of a handler.
type Options struct {
	// InsufficientAccessStatus answers a good key that lacks the right: 401, or 403 (RFC 6750, section 3.1).
	InsufficientAccessStatus int
	// Metrics count the answers.
	Metrics *Metrics
	// Log gets each refusal at debug level, and misused endpoints as warnings. No token and no URL is ever logged.
	Log *slog.Logger
}

// NewHandler returns the handler of the paths under /auth/. It works on the request target as it stands on the request line, so it
// must not be put behind an http.ServeMux, which cleans paths and redirects. Any other path is answered 404.
func NewHandler(authenticator *authn.Authenticator, options Options) http.Handler {
	endpoints := make(map[string]*endpoint, len(protocols))
	for _, p := range protocols {
		endpoints[p.name] = &endpoint{
			protocol:  p,
			desk:      newDesk(p.name, authenticator, options),
			wrongPath: newMisuse(http.StatusNotFound, "There is nothing at this path. Ask "+p.path+", "+namespaceHelp+p.pathHelp),
		}
	}
	unknown := envelope.NewError(http.StatusNotFound, "There is nothing at this path. Gateways ask "+allPaths()+", "+namespaceHelp)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target := cutTarget(r.RequestURI)
		if asked, ok := endpoints[target.protocol]; ok {
			asked.serve(w, r, target)
		} else {
			leaveBodyUnread(w, r)
			unknown.Write(w)
		}
	})
}

// endpoint serves one protocol.
type endpoint struct {
	protocol
	desk      *desk
	wrongPath *misuse
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request, target target) {
	start := time.Now()
	if !e.readsBody {
		leaveBodyUnread(w, r)
	}
	var decision authn.Decision
	if isDNSLabel(target.namespace) && target.more == e.appendsPath {
		decision = e.answer(e.desk, w, r, target.namespace)
	} else {
		decision = e.desk.refuse(w, e.wrongPath)
	}
	e.desk.metrics.observe(decision, time.Since(start))
}

// leaveBodyUnread makes net/http answer at once when a request has a body. On a connection that it means to use again it would wait
// for the body first, and a gateway may well announce a body that it does not send.
func leaveBodyUnread(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		w.Header()["Connection"] = connectionClose
	}
}

// connectionClose is a full slice of one: appending to it copies it.
var connectionClose = []string{"close"}

func allPaths() string {
	paths := make([]string, len(protocols))
	for i, p := range protocols {
		paths[i] = p.path
	}
	return strings.Join(paths, " or ")
}

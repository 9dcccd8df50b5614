// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gateway answers the gateways that ask whether the API key of a request is good and may do what the request does. Each
// protocol has a file, which only translates to and from authn.
package gateway

import (
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// protocol is how one kind of gateway asks.
type protocol struct {
	// name of the protocol in paths, metrics and logs.
	name string
	// path that the gateway asks, as a person writes it.
	path string
	// openEnded allows anything to follow the namespace in the path.
	openEnded bool
	// method returns the method of the original request, and whether the gateway says it as this protocol wants it.
	method func(r *http.Request) (method string, ok bool)
	// misuse tells the gateway's operator what to set, when method does not say it.
	misuse string
}

var protocols = []protocol{envoy, nginx, forward}

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
	answers := newAnswers(options.InsufficientAccessStatus)
	endpoints := make(map[string]*endpoint, len(protocols))
	for _, p := range protocols {
		endpoints[p.name] = &endpoint{
			protocol:      p,
			authenticator: authenticator,
			answers:       answers,
			wrongPath:     newAnswer(http.StatusNotFound, "There is nothing at this path. Ask "+p.path+", "+namespaceHelp),
			wrongMethod:   newAnswer(http.StatusBadRequest, p.misuse),
			metrics:       options.Metrics.of(p.name),
			log:           options.Log.With("protocol", p.name),
			warnings:      &rate.Sometimes{Interval: time.Minute},
		}
	}
	unknown := newAnswer(http.StatusNotFound, "There is nothing at this path. Gateways ask "+allPaths()+", "+namespaceHelp)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaveBodyUnread(w, r)
		target := cutTarget(r.RequestURI)
		if asked, ok := endpoints[target.protocol]; ok {
			asked.serve(w, r, target)
		} else {
			unknown.write(w)
		}
	})
}

// endpoint serves one protocol.
type endpoint struct {
	protocol
	authenticator *authn.Authenticator
	answers       *answers
	wrongPath     *answer
	wrongMethod   *answer
	metrics       *protocolMetrics
	log           *slog.Logger
	warnings      *rate.Sometimes
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request, target target) {
	start := time.Now()
	decision := e.answer(w, r, target)
	e.metrics.observe(decision, time.Since(start))
}

// answer answers one request and returns the decision, which is none when the gateway does not ask as it should.
func (e *endpoint) answer(w http.ResponseWriter, r *http.Request, target target) authn.Decision {
	if !isDNSLabel(target.namespace) || (target.more && !e.openEnded) {
		e.wrongPath.write(w)
		return malformed
	}
	method, ok := e.method(r)
	if !ok {
		e.warnings.Do(func() { e.log.Warn("A gateway is not set up right: " + e.misuse) })
		e.wrongMethod.write(w)
		return malformed
	}
	verdict := e.authenticator.Decide(authn.Request{
		Namespace:  target.namespace,
		Credential: authn.ExtractCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
		Access:     authn.AccessFor(method),
	})
	if verdict.Decision == authn.Granted {
		writeGranted(w, verdict.Key)
	} else {
		e.answers.to(verdict).write(w)
		e.logRefusal(r, target.namespace, verdict)
	}
	return verdict.Decision
}

func (e *endpoint) logRefusal(r *http.Request, namespace string, verdict authn.Verdict) {
	if !e.log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("decision", verdict.Decision.String()),
		slog.String("reason", string(verdict.Reason)),
		slog.String("namespace", namespace),
	}
	if verdict.Key != nil {
		attrs = append(attrs, slog.String("keyID", verdict.Key.UID))
	}
	e.log.LogAttrs(r.Context(), slog.LevelDebug, "refused", attrs...)
}

// leaveBodyUnread makes net/http answer at once when a request has a body. On a connection that it means to use again it would wait
// for the body first, and a gateway may well announce a body that it does not send.
func leaveBodyUnread(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		w.Header()["Connection"] = connectionClose
	}
}

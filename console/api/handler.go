// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/authn/denial"
)

// Handler serves the REST API.
type Handler struct {
	Options
	mux     *http.ServeMux
	denials *denial.Responses
}

// Options configure a Handler.
type Options struct {
	// Namespace of the keys.
	Namespace string
	// Version of the program, as GET / reports it.
	Version string
	// ServiceURL is the URL of the services that accept the keys, as GET / reports it. It is optional.
	ServiceURL string
	// Managers selects the keys that may create, change, rotate and deactivate keys.
	Managers Managers
	// Authenticator checks the key of each request.
	Authenticator *authn.Authenticator
	// KeyCache holds the keys of the namespace.
	KeyCache *KeyCache
	// Client reads and writes APIKeys without a cache.
	Client client.WithWatch
	// APIServerTime returns the time of the API server's clock, as known after a response of it.
	APIServerTime func() time.Time
	// BootstrapReady returns nil once the bootstrap key is accepted or given up. It is nil without a bootstrap key.
	BootstrapReady func() error
	// Metrics count the responses.
	Metrics *Metrics
	// Log gets each response: to requests that write at info level, to all others at debug level. Tokens and URLs are never logged.
	Log *slog.Logger
}

// request is an HTTP request and its state in the Handler.
type request struct {
	*http.Request
	// route is nil when the path does not exist or does not allow the method. The response is then noRoute.
	route   *route
	noRoute *envelope.Response
	// open is true when no key is required.
	open bool
	// verdict on the key of the request. It is zero when no key is required.
	verdict authn.Verdict
	// keyID is the ID of the key that the request creates, changes or deactivates, once it is known.
	keyID string
}

// NewHandler returns a Handler.
func NewHandler(options Options) *Handler {
	h := &Handler{Options: options, denials: denial.NewResponses(http.StatusUnauthorized)}
	h.mux = h.newMux()
	return h
}

// Ready returns nil when the API can serve requests. Otherwise it returns the reason and what to do.
func (h *Handler) Ready() error {
	if err := h.Authenticator.Ready(); err != nil {
		return err
	}
	if h.BootstrapReady != nil {
		return h.BootstrapReady()
	}
	return nil
}

var internalError = envelope.NewError(http.StatusInternalServerError,
	"An internal error occurred; the log of this server has the details. The request may have taken effect: list the keys to check.")

func (h *Handler) serve(w http.ResponseWriter, r *request) {
	start := time.Now()
	response := h.respond(w, r)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	response.Write(w)
	h.record(r, response, time.Since(start))
}

// respond returns the response to a request. A panic becomes an internal error.
func (h *Handler) respond(w http.ResponseWriter, r *request) (response *envelope.Response) {
	defer func() {
		if problem := recover(); problem != nil {
			h.logPanic(r, problem)
			response = internalError
		}
	}()
	if !r.open {
		// First, so that a client without a valid key does not learn which paths exist.
		if denied := h.authorize(r); denied != nil {
			return denied
		}
	}
	if r.route == nil {
		return r.noRoute
	}
	return r.route.handle(h, w, r)
}

// authorize returns nil if the key of the request is valid and has the access that the route needs. Otherwise it returns the response.
func (h *Handler) authorize(r *request) *envelope.Response {
	r.verdict = h.authenticate(r)
	if r.verdict.Decision != authn.Granted {
		return h.denials.For(r.verdict)
	}
	serving.ProtectConnection(r.Context(), h.Namespace)
	if r.route != nil && r.route.manages {
		return h.denyManagement(r.verdict.Key)
	}
	return nil
}

func (h *Handler) authenticate(r *request) authn.Verdict {
	needed := authn.AccessFor(r.Method)
	if r.route != nil && r.route.anyAccess {
		needed = 0
	}
	verdict := h.Authenticator.Decide(authn.Request{
		Namespace:  h.Namespace,
		Credential: authn.ExtractCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
		Access:     needed,
	})
	if verdict.Reason == authn.ReasonKeyUnknown && h.Ready() != nil { // it may be the bootstrap key
		return authn.Verdict{Decision: authn.Unavailable, Reason: authn.ReasonNotSynced}
	}
	return verdict
}

// record logs and counts a response.
func (h *Handler) record(r *request, response *envelope.Response, duration time.Duration) {
	h.Metrics.observe(r.routeName(), response.Status)
	level := slog.LevelDebug
	if r.verdict.Decision == authn.Granted && authn.AccessFor(r.Method) == authn.Write {
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{slog.String("route", r.routeName()), slog.Int("status", response.Status), slog.Duration("duration", duration)}
	if r.verdict.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(r.verdict.Reason)))
	}
	if r.verdict.Key != nil {
		attrs = append(attrs, slog.String("callerID", r.verdict.Key.UID))
	}
	if r.keyID != "" {
		attrs = append(attrs, slog.String("keyID", r.keyID))
	}
	h.Log.LogAttrs(r.Context(), level, "Request", attrs...)
}

func (r *request) routeName() string {
	if r.route == nil {
		return "none"
	}
	return r.route.name
}

// logPanic logs the type of a panic value, and the text of a runtime error. Any other text may contain a token.
func (h *Handler) logPanic(r *request, problem any) {
	text := fmt.Sprintf("%T", problem)
	if err, ok := problem.(runtime.Error); ok {
		text = err.Error()
	}
	h.Log.Error("A request handler panicked", "route", r.routeName(), "panic", text, "stack", string(debug.Stack()))
}

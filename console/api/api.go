// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package api serves the keys of one namespace to people and programs that have no kubectl: a REST API, which openapi.json
// describes. It is asked with an API key of that same namespace.
package api

import (
	"errors"
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

// API serves the keys of a namespace over HTTP.
type API struct {
	Options
	denials *denial.Responses
}

// Options of an API.
type Options struct {
	// Namespace whose keys are managed, and whose keys count.
	Namespace string
	// Version of the program.
	Version string
	// Managers says which keys may create and end keys.
	Managers Managers
	// Authenticator decides who may call. Its Keyring holds the keys of the namespace.
	Authenticator *authn.Authenticator
	// KeyCache of the namespace.
	KeyCache *KeyCache
	// Kubernetes writes and reads APIKeys, without a cache.
	Kubernetes client.WithWatch
	// Bootstrapped returns nil once it is settled whether the bootstrap key counts. It is nil when there is no such key.
	Bootstrapped func() error
	// Metrics count the answers.
	Metrics *Metrics
	// Log gets each answer: of calls that write at info level, of all others at debug level. No token and no URL is ever logged.
	Log *slog.Logger
}

// request is a request, and what is known of it.
type request struct {
	*http.Request
	route
	// verdict is the decision about the key that asks; none where no key is needed.
	verdict authn.Verdict
	// subject is the id of the key that is created or deactivated, once it is known.
	subject string
}

// NewAPI returns an API.
func NewAPI(options Options) *API {
	return &API{Options: options, denials: denial.NewResponses(http.StatusUnauthorized)}
}

// Ready returns nil when the API can do its work, else why not and what to do.
func (a *API) Ready() error {
	if err := a.Authenticator.Ready(); err != nil {
		return err
	}
	if !a.KeyCache.Synced() {
		return errors.New("the list of APIKeys has not come yet: the log says what the Kubernetes API answers")
	}
	if a.Bootstrapped != nil {
		return a.Bootstrapped()
	}
	return nil
}

var internalError = envelope.NewError(http.StatusInternalServerError,
	"Something went wrong in this server, and its log says what. Whether the call took effect is not known: list the keys to see.")

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	asked := &request{Request: r, route: findRoute(r.Method, r.URL.Path)}
	answer := a.answer(w, asked)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	answer.Write(w)
	a.record(asked, answer, time.Since(start))
}

// answer returns the answer to a request, whatever happens.
func (a *API) answer(w http.ResponseWriter, r *request) (answer *envelope.Response) {
	defer func() {
		if problem := recover(); problem != nil {
			a.logPanic(r, problem)
			answer = internalError
		}
	}()
	if !r.open {
		if refusal := a.authorize(r); refusal != nil { // before all else: a client without a key learns nothing of what is here
			return refusal
		}
	}
	if r.call == nil {
		return r.mistake
	}
	return r.call.answer(a, w, r)
}

// authorize returns the answer to a request whose key is not good, or may not make such a call, or nil.
func (a *API) authorize(r *request) *envelope.Response {
	r.verdict = a.authenticate(r)
	if r.verdict.Decision != authn.Granted {
		return a.denials.For(r.verdict)
	}
	serving.ProtectConnection(r.Context(), a.Namespace)
	if r.call != nil && r.call.manages {
		return a.refuseManagement(r.verdict.Key)
	}
	return nil
}

func (a *API) authenticate(r *request) authn.Verdict {
	verdict := a.Authenticator.Decide(authn.Request{
		Namespace:  a.Namespace,
		Credential: authn.ExtractCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
		Access:     authn.AccessFor(r.Method),
	})
	switch {
	case verdict.Decision == authn.Granted && !a.KeyCache.Synced(),
		verdict.Reason == authn.ReasonKeyUnknown && a.Ready() != nil: // it may be the bootstrap key
		return authn.Verdict{Decision: authn.Unavailable, Reason: authn.ReasonNotSynced}
	default:
		return verdict
	}
}

// record logs and counts an answer.
func (a *API) record(r *request, answer *envelope.Response, took time.Duration) {
	a.Metrics.observe(r.callName(), answer.Status)
	level := slog.LevelDebug
	if r.verdict.Decision == authn.Granted && authn.AccessFor(r.Method) == authn.Write {
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{slog.String("call", r.callName()), slog.Int("status", answer.Status), slog.Duration("took", took)}
	if r.verdict.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(r.verdict.Reason)))
	}
	if r.verdict.Key != nil {
		attrs = append(attrs, slog.String("by", r.verdict.Key.UID))
	}
	if r.subject != "" {
		attrs = append(attrs, slog.String("keyID", r.subject))
	}
	a.Log.LogAttrs(r.Context(), level, "answered", attrs...)
}

func (r *request) callName() string {
	if r.call == nil {
		return "none"
	}
	return r.call.name
}

// logPanic logs no more of a panic than Go itself says of it: the rest may have a token in it.
func (a *API) logPanic(r *request, problem any) {
	text := fmt.Sprintf("%T", problem)
	if err, ok := problem.(runtime.Error); ok {
		text = err.Error()
	}
	a.Log.Error("a call failed as none ever should", "call", r.callName(), "panic", text, "stack", string(debug.Stack()))
}

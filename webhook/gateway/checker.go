// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/authn/denial"
)

// desk is where the questions of one protocol are decided, logged and counted.
type desk struct {
	authenticator *authn.Authenticator
	denials       *denial.Responses
	metrics       *protocolMetrics
	log           *slog.Logger

	misuseWarnings    rate.Sometimes
	namespaceWarnings rate.Sometimes
}

func newDesk(protocol string, authenticator *authn.Authenticator, options Options) *desk {
	return &desk{
		authenticator: authenticator,
		denials:       denial.NewResponses(options.InsufficientAccessStatus),
		metrics:       options.Metrics.of(protocol),
		log:           options.Log.With("protocol", protocol),

		misuseWarnings:    rate.Sometimes{Interval: time.Minute},
		namespaceWarnings: rate.Sometimes{Interval: time.Minute},
	}
}

// decide answers a question, and logs a refusal with its reason. The answer to a gateway that asks about the wrong namespace is that to
// a bad key, so only the log can say so.
func (d *desk) decide(ctx context.Context, request authn.Request) authn.Verdict {
	verdict := d.authenticator.Decide(request)
	if verdict.Decision == authn.Granted {
		serving.ProtectConnection(ctx, request.Namespace)
		return verdict
	}
	if verdict.Decision == authn.Unauthenticated && verdict.Key == nil && !d.authenticator.HasKeys(request.Namespace) {
		d.warnOfNamespace(request.Namespace)
	}
	if d.log.Enabled(ctx, slog.LevelDebug) {
		d.logRefusal(ctx, request.Namespace, verdict)
	}
	return verdict
}

func (d *desk) logRefusal(ctx context.Context, namespace string, verdict authn.Verdict) {
	attrs := []slog.Attr{
		slog.String("decision", verdict.Decision.String()),
		slog.String("reason", string(verdict.Reason)),
		slog.String("namespace", namespace),
	}
	if verdict.Key != nil {
		attrs = append(attrs, slog.String("keyID", verdict.Key.UID))
	}
	d.log.LogAttrs(ctx, slog.LevelDebug, "refused", attrs...)
}

// misuse is a request that asks no question, because whoever asks is not set up right.
type misuse struct {
	problem string
	answer  *envelope.Response
}

// newMisuse returns a misuse: the problem tells what to do about it, and repeats nothing of the request.
func newMisuse(status int, problem string) *misuse {
	return &misuse{problem: problem, answer: envelope.NewError(status, problem)}
}

// with adds a header, named in canonical form, to the answer.
func (m *misuse) with(name, value string) *misuse {
	m.answer.With(name, value)
	return m
}

// refuse answers a misuse.
func (d *desk) refuse(w http.ResponseWriter, m *misuse) authn.Decision {
	d.warnOfMisuse(m.problem)
	m.answer.Write(w)
	return malformed
}

// warnOfMisuse tells who runs the gateway what to set, at most once a minute.
func (d *desk) warnOfMisuse(misuse string) {
	d.misuseWarnings.Do(func() { d.log.Warn("A gateway is not set up right: " + misuse) })
}

// warnOfNamespace logs that there are no keys where a gateway asks, at most once a minute: of several such namespaces the first that is
// asked for. Namespaces are DNS labels, so the name can be logged as it is.
func (d *desk) warnOfNamespace(namespace string) {
	d.namespaceWarnings.Do(func() {
		d.log.Warn("A namespace that has no API keys was asked for: check the namespace in the configuration of the gateway, or create "+
			"a key there.", "namespace", namespace)
	})
}

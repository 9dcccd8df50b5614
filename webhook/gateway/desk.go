// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/envelope"
)

// desk is where the questions of one protocol are decided, logged and counted.
type desk struct {
	authenticator *authn.Authenticator
	refusals      *envelope.Refusals
	metrics       *protocolMetrics
	log           *slog.Logger
	warnings      rate.Sometimes
}

func newDesk(protocol string, authenticator *authn.Authenticator, options Options) *desk {
	return &desk{
		authenticator: authenticator,
		refusals:      envelope.NewRefusals(options.InsufficientAccessStatus),
		metrics:       options.Metrics.of(protocol),
		log:           options.Log.With("protocol", protocol),
		warnings:      rate.Sometimes{Interval: time.Minute},
	}
}

// decide answers a question, and logs a refusal with its reason.
func (d *desk) decide(ctx context.Context, request authn.Request) authn.Verdict {
	verdict := d.authenticator.Decide(request)
	if verdict.Decision != authn.Granted && d.log.Enabled(ctx, slog.LevelDebug) {
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

// warnOfMisuse tells who runs the gateway what to set, at most once a minute.
func (d *desk) warnOfMisuse(misuse string) {
	d.warnings.Do(func() { d.log.Warn("A gateway is not set up right: " + misuse) })
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/authn/denial"
)

// checker decides, logs and counts the checks of one protocol.
type checker struct {
	authenticator *authn.Authenticator
	denials       *denial.Responses
	metrics       *protocolMetrics
	log           *slog.Logger

	// A misconfigured gateway can cause a warning for each request. rate.Sometimes allocates nothing for those that it suppresses.
	configWarnings    rate.Sometimes
	namespaceWarnings rate.Sometimes
}

func newChecker(protocol string, authenticator *authn.Authenticator, options Options) *checker {
	return &checker{
		authenticator: authenticator,
		denials:       denial.NewResponses(options.InsufficientAccessStatus),
		metrics:       options.Metrics.of(protocol),
		log:           options.Log.With("protocol", protocol),

		configWarnings:    rate.Sometimes{Interval: time.Minute},
		namespaceWarnings: rate.Sometimes{Interval: time.Minute},
	}
}

// check decides a request, and logs a denial with its reason. A gateway that names a wrong namespace gets the same response as an unknown
// key, so only the log distinguishes the two.
func (c *checker) check(ctx context.Context, request authn.Request) authn.Verdict {
	verdict := c.authenticator.Decide(request)
	if verdict.Decision == authn.Granted {
		serving.ProtectConnection(ctx, request.Namespace)
		return verdict
	}
	switch {
	case verdict.Reason == authn.ReasonNamespaceNotServed:
		c.warnOfUnservedNamespace(request.Namespace)
	case verdict.Decision == authn.Unauthenticated && verdict.Key == nil && !c.authenticator.HasKeys(request.Namespace):
		c.warnOfNamespace(request.Namespace)
	}
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.logDenial(ctx, request.Namespace, verdict)
	}
	return verdict
}

func (c *checker) logDenial(ctx context.Context, namespace string, verdict authn.Verdict) {
	attrs := []slog.Attr{
		slog.String("decision", verdict.Decision.String()),
		slog.String("reason", string(verdict.Reason)),
		slog.String("namespace", namespace),
	}
	if verdict.Key != nil {
		attrs = append(attrs, slog.String("keyID", verdict.Key.UID))
	}
	c.log.LogAttrs(ctx, slog.LevelDebug, "Denied", attrs...)
}

// warnOfNamespace logs at most once a minute that a gateway names a namespace without keys. Of several such namespaces it logs the
// first. A namespace is a DNS label, so the name is safe to log.
func (c *checker) warnOfNamespace(namespace string) {
	c.namespaceWarnings.Do(func() {
		c.log.Warn("A gateway sent a check for a namespace without API keys: correct the namespace in the configuration of the gateway, "+
			"or create a key in this namespace.", "namespace", namespace)
	})
}

// warnOfUnservedNamespace logs, as warnOfNamespace does, that a gateway names a namespace whose keys the authenticator does not read.
func (c *checker) warnOfUnservedNamespace(namespace string) {
	c.namespaceWarnings.Do(func() {
		c.log.Warn("A gateway sent a check for a namespace that is not one of --namespaces, and got the status 503: correct the namespace in "+
			"the configuration of the gateway, or add it to --namespaces.", "namespace", namespace)
	})
}

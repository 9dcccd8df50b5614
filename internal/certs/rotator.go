// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/internal/kubeapi"
	"squirrel.dev/apikey-operator/internal/logging"
)

// The names of the objects that the Rotator writes.
const (
	// AuthoritySecret is the Secret of the authorities.
	AuthoritySecret = "apikey-operator-ca"
	// BundleConfigMap is the ConfigMap of the CA bundle, in the namespace of the controller and in those of the consoles.
	BundleConfigMap = "apikey-operator-ca"
	// AuthenticatorSecret is the Secret of the authenticator's serving certificate.
	AuthenticatorSecret = "apikey-authenticator-tls"
	// ConsoleSecret is the Secret of a console's serving certificate, in the console's namespace.
	ConsoleSecret = "apikey-console-tls"
	// WebhookSecret is the Secret of the admission webhook's serving certificate.
	WebhookSecret = "apikey-controller-webhook-tls"
	// WebhookConfiguration is the ValidatingWebhookConfiguration that gets the CA bundle.
	WebhookConfiguration = "apikeys.keys.squirrel.dev"
)

const (
	interval   = 10 * time.Second
	firstDelay = time.Second

	// rotateTimeout is shorter than the lease of the leader election (15 s). If a process is paused in the middle of a rotation, the timeout
	// has passed when it resumes, and its writes fail before they are sent.
	rotateTimeout = 10 * time.Second

	// failureLines are logged at once, and then one a minute.
	failureLines = 3
)

// errClockNotTrusted is the warning while the clocks differ.
var errClockNotTrusted = errors.New("no authority is created or removed while the controller's clock differs from the API server's: " +
	"see the controller's log for the difference")

// Rotator issues and renews the certificates. It runs in the leader.
type Rotator struct {
	// Client reads and writes without a cache. A cache would lag, and hold every Secret of the cluster.
	Client client.Client
	// Events records warnings about objects that block a part of the rotation.
	Events events.EventRecorder
	// Log is the logger.
	Log *slog.Logger
	// Namespace is the namespace of the Secrets and the ConfigMap.
	Namespace string
	// WebhookConfiguration is the name of the ValidatingWebhookConfiguration. It is empty without an admission webhook.
	WebhookConfiguration string
	// ConsoleNamespaces are the namespaces of the consoles that get a serving certificate.
	ConsoleNamespaces []string
	// Lifetime is the lifetime of an authority, at least MinLifetime. All other times follow from it.
	Lifetime time.Duration
	// Now is the clock.
	Now func() time.Time
	// CheckClock returns an error while the clock may be wrong: see kubeapi.Clock.
	CheckClock func(context.Context) error

	warned map[string]bool // by object and problem
}

// NewRotator returns a Rotator for a namespace. The client must have no cache, and the clock must observe the client's responses.
func NewRotator(
	live client.Client, recorder events.EventRecorder, log *slog.Logger, namespace string, lifetime time.Duration, clock *kubeapi.Clock,
) *Rotator {
	return &Rotator{
		Client:               live,
		Events:               recorder,
		Log:                  log,
		Namespace:            namespace,
		WebhookConfiguration: WebhookConfiguration,
		Lifetime:             lifetime,
		Now:                  clock.Now,
		CheckClock:           clock.Check,
		warned:               map[string]bool{},
	}
}

// NeedLeaderElection makes the manager start the Rotator in the leader alone.
func (*Rotator) NeedLeaderElection() bool { return true }

// Start rotates the certificates until the context is done.
func (r *Rotator) Start(ctx context.Context) error {
	delay, failures := firstDelay, logging.Limit(r.Log, failureLines)
	for ctx.Err() == nil {
		err := r.Rotate(ctx)
		if err == nil {
			delay = interval
		} else if ctx.Err() == nil {
			failures.Error("Cannot rotate the certificates; retrying", "err", err)
			delay = min(2*delay, interval)
		}
		sleep(ctx, delay)
	}
	return nil
}

// now returns the time in the precision of certificates.
func (r *Rotator) now() time.Time { return r.Now().UTC().Truncate(time.Second) }

// Rotate reads all objects once and writes what is due. If it cannot renew the authorities, the authority that signs still renews the
// serving certificates.
func (r *Rotator) Rotate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	bundles := r.readBundles(ctx) // before the authorities: see the package comment
	authorities, err := r.reconcileAuthorities(ctx, bundles)
	now := r.now()
	if len(authorities) > 0 {
		recordExpiration("authority", encodeBundle(authorities[len(authorities)-1:]))
	}
	errs := []error{err, errors.Join(bundles.consoleProblems...)}
	anchors := trustAnchors{authorities: authorities, incomplete: err != nil}
	for _, s := range r.servers() {
		errs = append(errs, r.reconcileServing(ctx, s, anchors, now))
	}
	return errors.Join(errs...)
}

// reconcileAuthorities returns the authorities, sorted, the oldest first. Without an error all of them are valid, published and scheduled,
// and the oldest may sign. With an error it returns the authorities that it could read.
func (r *Rotator) reconcileAuthorities(ctx context.Context, b *bundles) ([]authority, error) {
	secret := &corev1.Secret{}
	if err := r.read(ctx, r.Namespace, AuthoritySecret, secret); err != nil {
		return nil, errors.Join(b.unpublishable, err)
	}
	authorities, damage := r.parseAuthorities(secret)
	if err := errors.Join(b.unpublishable, damage); err != nil {
		return authorities, err
	}
	if slices.ContainsFunc(authorities, authority.isScheduled) { // without one, a wrong clock can do no harm
		if err := r.CheckClock(ctx); err != nil {
			r.recordWarning(secret, "ClockNotTrusted", errClockNotTrusted)
			return authorities, errors.Join(r.publish(ctx, b, authorities), err)
		}
	}
	authorities, err := r.renewAuthorities(ctx, secret, authorities)
	if err != nil {
		return authorities, err
	}
	if err := r.publish(ctx, b, authorities); err != nil {
		return authorities, err
	}
	return r.scheduleAuthorities(ctx, secret, authorities)
}

// parseAuthorities returns the intact authorities of the Secret, sorted, the oldest first, and an error if others are damaged.
func (r *Rotator) parseAuthorities(secret *corev1.Secret) ([]authority, error) {
	authorities, damage := parseAuthorities(secret)
	switch {
	case damage == nil:
		return authorities, nil
	case len(authorities) == 0:
		damage = fmt.Errorf("the Secret %q has no intact authority: restore the Secret, or delete it to get a new authority, "+
			"which all clients must then trust: %w", AuthoritySecret, damage)
	default:
		damage = fmt.Errorf("the Secret %q has damaged authorities: restore or remove them, so that a new one can be created: %w",
			AuthoritySecret, damage)
	}
	r.recordWarning(secret, "Damaged", damage)
	return authorities, damage
}

// renewAuthorities removes expired authorities from the Secret, adds a new one if it is due, and returns the result, sorted, the oldest
// first. With an error it returns all authorities unchanged.
func (r *Rotator) renewAuthorities(ctx context.Context, secret *corev1.Secret, all []authority) ([]authority, error) {
	now := r.now()
	var authorities []authority
	for _, a := range all {
		if isExpired(a.certificate, now) {
			a.removeFrom(secret)
		} else {
			authorities = append(authorities, a)
		}
	}
	if domains := r.permittedDomains(); needsSuccessor(authorities, now, r.Lifetime, domains) {
		created, err := newAuthority(now, r.Lifetime, domains)
		if err != nil {
			return all, err
		}
		if err := created.addTo(secret); err != nil {
			return all, err
		}
		r.Log.Info("Creating an authority", "authority", created.id, "notAfter", created.certificate.NotAfter)
		authorities = append(authorities, created)
	} else if len(authorities) == len(all) {
		return authorities, nil
	}
	if err := r.write(ctx, secret); err != nil {
		return all, err
	}
	return authorities, nil
}

// scheduleAuthorities schedules when each published authority signs, and returns the result. The oldest signs at once, because no other
// can. With an error it returns the authorities unchanged.
func (r *Rotator) scheduleAuthorities(ctx context.Context, secret *corev1.Secret, published []authority) ([]authority, error) {
	now, before, authorities := r.now(), secret.DeepCopy(), slices.Clone(published)
	for i := range authorities {
		a := &authorities[i]
		switch {
		case i == 0 && !a.maySign(now):
			a.signsFrom = now
		case i > 0 && !a.isScheduled():
			a.signsFrom = now.Add(signingDelay(authorities[i-1], r.Lifetime, now))
		default:
			continue
		}
		a.scheduleIn(secret)
		r.Log.Info("Scheduling a published authority", "authority", a.id, "signsFrom", a.signsFrom)
	}
	if equality.Semantic.DeepEqual(before, secret) {
		return authorities, nil
	}
	if err := r.write(ctx, secret); err != nil {
		return published, err
	}
	return authorities, nil
}

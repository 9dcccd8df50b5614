// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package certs mints and renews the certificates that the authenticator and the admission webhook serve with, and the authority
// that signs them. Whoever verifies with the published bundle, or with one that was published a while ago, never meets a certificate
// that it does not cover: a new authority is published beside the old one long before it signs, and the old one stays until it expires.
//
// That is why it is written here: cert-manager's pkg/server/tls/authority and open-policy-agent/cert-controller replace an authority
// at once.
//
// All that it knows is in the cluster, in the namespace that it runs in:
//
//   - the Secret apikey-operator-ca has the authorities, each as <serial>.crt and <serial>.key in PEM. For each that was published, an
//     annotation, signs-from.keys.squirrel.dev/<serial>, says from when on it may sign;
//   - the ConfigMap apikey-operator-ca has their certificates as ca.crt, for everybody;
//   - the ValidatingWebhookConfiguration has the same certificates, for the API server;
//   - the Secrets apikey-authenticator-tls and apikey-controller-webhook-tls have the serving certificates.
//
// They are looked at live and written on the condition that nobody else wrote them meanwhile, in an order that makes it safe to stop
// after any write, and to have two leaders for a moment:
//
//  1. The ConfigMap is read before the authorities are, and written after them: whoever knows less than is in the Secret writes no
//     ConfigMap over one that knows it. So what is published once stays so until it expires.
//  2. From when on an authority may sign is said after it was published.
//  3. Certificates are signed last, by an authority that may.
//
// When something keeps authorities from being published, such as an object of somebody else, or when one of them is damaged, none is
// minted, and no certificate that is trusted is taken away. One that may sign goes on to.
//
// While the clock differs from the API server's, no authority is minted, scheduled or removed, but for the first one. Serving certificates,
// which are easily replaced, are dated by the API server's clock then.
//
// Deleting the Secret of the authorities replaces them all at once: that is for when a key of theirs has leaked.
package certs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/internal/kubeapi"
)

// Names of what is written.
const (
	// AuthoritySecret is the Secret of the authorities.
	AuthoritySecret = "apikey-operator-ca"
	// BundleConfigMap is the ConfigMap of the certificates to verify with.
	BundleConfigMap = "apikey-operator-ca"
	// AuthenticatorSecret is the Secret that the authenticator serves with.
	AuthenticatorSecret = "apikey-authenticator-tls"
	// WebhookSecret is the Secret that the admission webhook is served with.
	WebhookSecret = "apikey-controller-webhook-tls"
	// WebhookConfiguration is the ValidatingWebhookConfiguration whose webhooks are told whom to trust.
	WebhookConfiguration = "apikeys.keys.squirrel.dev"
)

const (
	interval   = 10 * time.Second
	firstDelay = time.Second

	// roundTimeout is shorter than the lease of leader election (15 s): a process that was stopped in the middle of a round finds its
	// time over when it continues, and its calls fail before they are sent.
	roundTimeout = 10 * time.Second
)

// errClockNotTrusted is what keeps authorities from being succeeded when clocks differ.
var errClockNotTrusted = errors.New("no authority is succeeded or removed until the controller can trust its clock: its log says how far " +
	"that is from the API server's")

// Rotator keeps the certificates. It runs while its process leads.
type Rotator struct {
	// Client reads and writes without a cache, which would hold every Secret of the cluster, and lag behind.
	Client client.Client
	// Events tells people what is in the way.
	Events events.EventRecorder
	// Namespace has the Secrets and the ConfigMap.
	Namespace string
	// WebhookConfiguration is the name of the ValidatingWebhookConfiguration.
	WebhookConfiguration string
	// Lifetime is how long an authority is good for, at least MinLifetime. All other times follow from it.
	Lifetime time.Duration
	// Now is the clock.
	Now func() time.Time
	// CheckClock returns why nothing may be done yet that cannot be undone and that only the clock demands: see kubeapi.Clock.
	CheckClock func(context.Context) error

	told map[string]bool // what people were told already, of which object
}

// NewRotator returns a Rotator for a namespace, whose client has no cache. The clock must see what the API server answers to the client.
func NewRotator(
	live client.Client, recorder events.EventRecorder, namespace string, lifetime time.Duration, clock *kubeapi.Clock,
) *Rotator {
	return &Rotator{
		Client:               live,
		Events:               recorder,
		Namespace:            namespace,
		WebhookConfiguration: WebhookConfiguration,
		Lifetime:             lifetime,
		Now:                  clock.Now,
		CheckClock:           clock.Check,
		told:                 map[string]bool{},
	}
}

// NeedLeaderElection says that one of several replicas is enough.
func (r *Rotator) NeedLeaderElection() bool { return true }

// Start keeps the certificates until the context is done.
func (r *Rotator) Start(ctx context.Context) error {
	delay, logged := firstDelay, rate.Sometimes{First: 3, Interval: time.Minute}
	for ctx.Err() == nil {
		err := r.Rotate(ctx)
		if err == nil {
			delay = interval
		} else if ctx.Err() == nil {
			logged.Do(func() { log.FromContext(ctx).Error(err, "the certificates cannot be kept; trying again") })
			delay = min(2*delay, interval)
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
	return nil
}

// now is the time, as precise as certificates say it.
func (r *Rotator) now() time.Time { return r.Now().UTC().Truncate(time.Second) }

// Rotate looks at everything once, and does what is due. What keeps authorities from being succeeded does not keep the one that signs from
// renewing the serving certificates.
func (r *Rotator) Rotate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	authorities, err := r.keepAuthorities(ctx)
	now := r.now()
	signer, found := signerOf(authorities, now)
	if !found {
		r.recordExpirations(ctx) // nothing is renewed now, so somebody has to be told in time
		return err
	}
	recordExpiration("authority", bundleOf(authorities[len(authorities)-1:]))
	errs := []error{err}
	for _, s := range r.servers() {
		errs = append(errs, r.keepServing(ctx, s, signer, trust{authorities: authorities, partial: err != nil}, now))
	}
	return errors.Join(errs...)
}

// keepAuthorities returns the authorities, the oldest first. Without an error they are good, and all of them are published and scheduled,
// the oldest for now or earlier. With an error, they are those that are known.
func (r *Rotator) keepAuthorities(ctx context.Context) ([]authority, error) {
	configMap, secret := &corev1.ConfigMap{}, &corev1.Secret{}
	unpublishable := r.read(ctx, BundleConfigMap, configMap) // before the authorities: see the package
	if err := r.read(ctx, AuthoritySecret, secret); err != nil {
		return nil, errors.Join(unpublishable, err)
	}
	authorities, damage := r.knownAuthorities(ctx, secret)
	if err := errors.Join(unpublishable, damage); err != nil {
		return authorities, err
	}
	if slices.ContainsFunc(authorities, authority.isScheduled) {
		if err := r.CheckClock(ctx); err != nil {
			r.tellPeople(ctx, secret, "ClockNotTrusted", errClockNotTrusted)
			return authorities, errors.Join(r.publish(ctx, configMap, authorities), err)
		}
	} // else there is nothing yet that a wrong clock could end
	authorities, err := r.renewAuthorities(ctx, secret, authorities)
	if err != nil {
		return authorities, err
	}
	if err := r.publish(ctx, configMap, authorities); err != nil {
		return authorities, err
	}
	return r.scheduleAuthorities(ctx, secret, authorities)
}

// knownAuthorities returns the authorities of the Secret that are not damaged, the oldest first, and an error if some are.
func (r *Rotator) knownAuthorities(ctx context.Context, secret *corev1.Secret) ([]authority, error) {
	authorities, damage := parseAuthorities(secret)
	switch {
	case damage == nil:
		return authorities, nil
	case len(authorities) == 0:
		damage = fmt.Errorf("the Secret %q has no authorities to sign with: restore it, or delete it to have a new authority "+
			"that all who verify must learn of: %w", AuthoritySecret, damage)
	default:
		damage = fmt.Errorf("the Secret %q has damaged authorities, and none is succeeded until they are restored or removed: %w",
			AuthoritySecret, damage)
	}
	r.tellPeople(ctx, secret, "Damaged", damage)
	return authorities, damage
}

// renewAuthorities returns those of the authorities that are good, the oldest first, with the one that is due. With an error it returns
// them as they were.
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
	if needSuccessor(authorities, now, r.Lifetime) {
		minted, err := mintAuthority(now, r.Lifetime, r.domains())
		if err != nil {
			return all, err
		}
		if err := minted.addTo(secret); err != nil {
			return all, err
		}
		log.FromContext(ctx).Info("minting an authority", "authority", minted.id, "notAfter", minted.certificate.NotAfter)
		authorities = append(authorities, minted)
	} else if len(authorities) == len(all) {
		return authorities, nil
	}
	if err := r.write(ctx, secret); err != nil {
		return all, err
	}
	return authorities, nil
}

// scheduleAuthorities says of every authority that was published from when on it may sign, and returns them with that. The oldest may at
// once: nobody else can. With an error it returns them as they were.
func (r *Rotator) scheduleAuthorities(ctx context.Context, secret *corev1.Secret, published []authority) ([]authority, error) {
	now, before, authorities := r.now(), secret.DeepCopy(), slices.Clone(published)
	for i := range authorities {
		a := &authorities[i]
		switch {
		case i == 0 && !a.maySign(now):
			a.signsFrom = now
		case i > 0 && !a.isScheduled():
			a.signsFrom = now.Add(waitOf(authorities[i-1], r.Lifetime, now))
		default:
			continue
		}
		a.scheduleIn(secret)
		log.FromContext(ctx).Info("an authority was published", "authority", a.id, "signsFrom", a.signsFrom)
	}
	if equality.Semantic.DeepEqual(before, secret) {
		return authorities, nil
	}
	if err := r.write(ctx, secret); err != nil {
		return published, err
	}
	return authorities, nil
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package certificates mints and renews the certificates that the authenticator and the admission webhook serve with, and the authority
// that signs them. Whoever verifies with the published bundle, or with one that was published a while ago, never meets a certificate
// that it does not cover: a new authority is published beside the old one long before it signs, and the old one stays until it expires.
//
// That is why it is written here: cert-manager's pkg/server/tls/authority and open-policy-agent/cert-controller replace an authority
// at once.
//
// All that it knows is in the cluster, in the namespace that it runs in:
//
//   - the Secret apikey-operator-ca has the authorities, each as <serial>.crt and <serial>.key in PEM;
//   - the ConfigMap apikey-operator-ca has their certificates as ca.crt, for everybody. An annotation for each,
//     signs-from.keys.squirrel.dev/<serial>, says from when on it may sign;
//   - the ValidatingWebhookConfiguration has the same certificates, for the API server;
//   - the Secrets apikey-authenticator-tls and apikey-controller-webhook-tls have the serving certificates.
//
// They are looked at live and written on the condition that nobody else wrote them meanwhile, in an order that makes it safe to stop
// after any write, and to have two leaders for a moment:
//
//  1. The ConfigMap is read before the authorities are, and written after them. So no bundle is ever published that lacks an authority
//     which may have signed already.
//  2. What is published says itself from when on an authority may sign. An authority whose publication was lost, or undone, waits anew.
//  3. Certificates are signed last, by an authority that the bundle says may sign.
package certificates

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
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

// Keeper keeps the certificates. It runs while its process leads.
type Keeper struct {
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

	foreign map[types.UID]bool // what people were told of already
}

// NewKeeper returns a Keeper for a namespace, whose client has no cache.
func NewKeeper(live client.Client, recorder events.EventRecorder, namespace string, lifetime time.Duration) *Keeper {
	return &Keeper{
		Client:               live,
		Events:               recorder,
		Namespace:            namespace,
		WebhookConfiguration: WebhookConfiguration,
		Lifetime:             lifetime,
		Now:                  time.Now,
		foreign:              map[types.UID]bool{},
	}
}

// NeedLeaderElection says that one of several replicas is enough.
func (k *Keeper) NeedLeaderElection() bool { return true }

// Start keeps the certificates until the context is done.
func (k *Keeper) Start(ctx context.Context) error {
	for delay := firstDelay; ; {
		switch err := k.Keep(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.FromContext(ctx).Error(err, "the certificates cannot be kept; trying again")
			delay = min(2*delay, interval)
		default:
			delay = interval
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// Keep looks at everything once, and does what is due.
func (k *Keeper) Keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	now := k.Now().UTC().Truncate(time.Second) // as precise as certificates are
	published, err := k.readBundle(ctx)        // before the authorities: see the package
	if err != nil {
		return err
	}
	authorities, err := k.keepAuthorities(ctx, now)
	if err != nil {
		return err
	}
	recordExpiration("authority", encodeCertificates(authorities[len(authorities)-1].certificate))
	signsFrom := schedule(authorities, published.signsFrom(authorities), now, k.Lifetime)
	if err := k.publish(ctx, published, authorities, signsFrom); err != nil {
		return err
	}
	signer := signerOf(authorities, signsFrom, now)
	var errs []error
	for _, s := range k.servers() {
		errs = append(errs, k.keepServing(ctx, s, signer, bundleOf(authorities), now))
	}
	return errors.Join(errs...)
}

// keepAuthorities returns the authorities that are good, the oldest first, after it has added the one that is due to the Secret.
func (k *Keeper) keepAuthorities(ctx context.Context, now time.Time) ([]authority, error) {
	secret := &corev1.Secret{}
	if err := k.read(ctx, AuthoritySecret, secret); err != nil {
		return nil, err
	}
	all, err := parseAuthorities(secret.Data)
	if err != nil {
		return nil, fmt.Errorf("the Secret %q has no authorities to sign with; restore it, or delete it to have a new authority "+
			"that all who verify must learn of: %w", AuthoritySecret, err)
	}
	var authorities []authority
	for _, a := range all {
		if isExpired(a.certificate, now) {
			a.removeFrom(secret)
			log.FromContext(ctx).Info("an authority expired", "authority", a.id)
		} else {
			authorities = append(authorities, a)
		}
	}
	mint := needSuccessor(authorities, now, k.Lifetime)
	if mint {
		minted, err := mintAuthority(now, k.Lifetime, k.domains())
		if err != nil {
			return nil, err
		}
		if err := minted.addTo(secret); err != nil {
			return nil, err
		}
		authorities = append(authorities, minted)
	}
	if !mint && len(authorities) == len(all) {
		return authorities, nil
	}
	if err := k.write(ctx, secret); err != nil {
		return nil, err
	}
	newest := authorities[len(authorities)-1]
	if mint {
		log.FromContext(ctx).Info("an authority was minted", "authority", newest.id, "notAfter", newest.certificate.NotAfter)
	}
	return authorities, nil
}

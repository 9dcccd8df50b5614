// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// server is a server that needs a serving certificate.
type server struct {
	name    string // in logs and metrics
	service string // the name of its Service
	secret  string // the name of the Secret of its certificate
	// injectCABundle passes the CA bundle on to clients that read no ConfigMap, before a certificate is issued. It may be nil.
	injectCABundle func(context.Context, trustAnchors) error
}

func (r *Rotator) servers() []server {
	return []server{
		{name: "authenticator", service: "apikey-authenticator", secret: AuthenticatorSecret},
		{name: "webhook", service: "apikey-controller-webhook", secret: WebhookSecret, injectCABundle: r.injectCABundle},
	}
}

// dnsNames returns the names of a Service in the cluster.
func (r *Rotator) dnsNames(service string) []string {
	inNamespace := service + "." + r.Namespace
	return []string{service, inNamespace, inNamespace + ".svc", inNamespace + ".svc.cluster.local"}
}

// permittedDomains returns the domains that an authority may sign for. The namespace alone is not one of them: if it is called dev, it
// would permit every name below that top-level domain.
func (r *Rotator) permittedDomains() []string {
	var domains []string
	for _, s := range r.servers() {
		domains = append(domains, r.dnsNames(s.service)...)
	}
	return domains
}

// reconcileServing renews the serving certificate of a server when that is due. If the Secret belongs to another owner, so does its CA
// bundle.
func (r *Rotator) reconcileServing(ctx context.Context, s server, signer authority, anchors trustAnchors, now time.Time) error {
	secret := &corev1.Secret{}
	switch err := r.read(ctx, s.secret, secret); {
	case errors.As(err, new(notManagedError)):
		recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
		return nil
	case err != nil:
		return err
	}
	if s.injectCABundle != nil {
		if err := s.injectCABundle(ctx, anchors); err != nil {
			return err
		}
	}
	names := r.dnsNames(s.service)
	reason := reissueReason(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], signer, names, now)
	bundle := mergeBundles(secret.Data[bundleKey], anchors)
	if reason == "" && bytes.Equal(secret.Data[bundleKey], bundle) {
		recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
		return nil
	}
	if secret.Data == nil {
		secret.Type, secret.Data = corev1.SecretTypeTLS, map[string][]byte{}
	}
	secret.Data[bundleKey] = bundle
	if reason != "" {
		certificate, key, err := signer.issue(now, propagation(r.Lifetime), names)
		if err != nil {
			return err
		}
		if secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], err = encode(certificate, key); err != nil {
			return err
		}
		r.Log.Info("Issuing a serving certificate",
			"server", s.name, "reason", reason, "authority", signer.id, "notAfter", certificate.NotAfter)
	}
	recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
	return r.write(ctx, secret)
}

// recordExpirations records the expiry of the existing serving certificates.
func (r *Rotator) recordExpirations(ctx context.Context) {
	for _, s := range r.servers() {
		secret := &corev1.Secret{}
		if err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: s.secret}, secret); err == nil {
			recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
		}
	}
}

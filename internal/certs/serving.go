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
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// server is who serves with a certificate.
type server struct {
	name    string // in logs and metrics
	service string // the Service that it is reached by
	secret  string
	// tell tells somebody whom to trust who does not read the bundle, before a certificate is signed; nil is nobody.
	tell func(ctx context.Context, trust trust) error
}

func (r *Rotator) servers() []server {
	return []server{
		{name: "authenticator", service: "apikey-authenticator", secret: AuthenticatorSecret},
		{name: "webhook", service: "apikey-controller-webhook", secret: WebhookSecret, tell: r.tellWebhooks},
	}
}

// namesOf returns the names by which clients in the cluster find a Service.
func (r *Rotator) namesOf(service string) []string {
	inNamespace := service + "." + r.Namespace
	return []string{service, inNamespace, inNamespace + ".svc", inNamespace + ".svc.cluster.local"}
}

// domains returns the names that an authority may sign for. The namespace is none of them: in one that is called dev, it would be every
// name below that top-level domain.
func (r *Rotator) domains() []string {
	var domains []string
	for _, s := range r.servers() {
		domains = append(domains, r.namesOf(s.service)...)
	}
	return domains
}

// keepServing renews the certificate that a server serves with when it is due. One that somebody else made is left to them, and so is
// telling whom to trust.
func (r *Rotator) keepServing(ctx context.Context, s server, signer authority, trust trust, now time.Time) error {
	secret := &corev1.Secret{}
	switch err := r.read(ctx, s.secret, secret); {
	case errors.As(err, new(foreignError)):
		recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
		return nil
	case err != nil:
		return err
	}
	if s.tell != nil {
		if err := s.tell(ctx, trust); err != nil {
			return err
		}
	}
	names := r.namesOf(s.service)
	reason := whyIssue(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], signer, names, now)
	bundle := trust.over(secret.Data[bundleKey])
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
		log.FromContext(ctx).Info("issuing a serving certificate",
			"server", s.name, "reason", reason, "authority", signer.id, "notAfter", certificate.NotAfter)
	}
	recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
	return r.write(ctx, secret)
}

// recordExpirations records when the certificates end that are there.
func (r *Rotator) recordExpirations(ctx context.Context) {
	for _, s := range r.servers() {
		secret := &corev1.Secret{}
		if err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: s.secret}, secret); err == nil {
			recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
		}
	}
}

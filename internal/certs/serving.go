// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// server is a server that needs a serving certificate.
type server struct {
	name      string   // in logs and metrics
	namespace string   // of its Service and its Secret
	secret    string   // the name of the Secret of its certificate
	dnsNames  []string // of its certificate
	// injectCABundle passes the CA bundle on to clients that read no ConfigMap, before a certificate is issued. It may be nil.
	injectCABundle func(context.Context, trustAnchors) error
}

func (r *Rotator) servers() []server {
	servers := []server{{
		name: "authenticator", namespace: r.Namespace, secret: AuthenticatorSecret, dnsNames: dnsNames("apikey-authenticator", r.Namespace),
	}}
	if r.WebhookConfiguration != "" {
		servers = append(servers, server{
			name: "webhook", namespace: r.Namespace, secret: WebhookSecret, dnsNames: dnsNames("apikey-controller-webhook", r.Namespace),
			injectCABundle: r.injectCABundle,
		})
	}
	for _, namespace := range r.ConsoleNamespaces {
		servers = append(servers, server{
			name: "console/" + namespace, namespace: namespace, secret: ConsoleSecret,
			dnsNames: append(dnsNames("apikey-console", namespace), "localhost"), // for kubectl port-forward
		})
	}
	return servers
}

// dnsNames returns the names of a Service in the cluster.
func dnsNames(service, namespace string) []string {
	inNamespace := service + "." + namespace
	return []string{service, inNamespace, inNamespace + ".svc", inNamespace + ".svc.cluster.local"}
}

// permittedDomains returns the domains that an authority may sign for. A namespace alone is not one of them: if it is called dev, it would
// permit every name below that top-level domain.
func (r *Rotator) permittedDomains() []string {
	var domains []string
	for _, s := range r.servers() {
		domains = append(domains, s.dnsNames...)
	}
	slices.Sort(domains)
	return slices.Compact(domains)
}

// reconcileServing renews the serving certificate of a server when that is due. If the Secret belongs to another owner, so does its CA
// bundle.
func (r *Rotator) reconcileServing(ctx context.Context, s server, anchors trustAnchors, now time.Time) error {
	signer, found := selectSigner(anchors.authorities, now, s.dnsNames)
	if !found { // because an error prevents a new authority
		r.recordServingExpiration(ctx, s) // the alert on it must fire in time, because the certificate is not renewed
		return nil
	}
	secret := &corev1.Secret{}
	switch err := r.read(ctx, s.namespace, s.secret, secret); {
	case errors.As(err, new(notManagedError)):
		recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
		return nil
	case err != nil:
		return err
	}
	recordExpiration(s.name, secret.Data[corev1.TLSCertKey]) // of the existing certificate, which stays if a write fails
	if s.injectCABundle != nil {
		if err := s.injectCABundle(ctx, anchors); err != nil {
			return err
		}
	}
	reason := reissueReason(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], signer, s.dnsNames, now)
	bundle := mergeBundles(secret.Data[bundleKey], anchors)
	if reason == "" && bytes.Equal(secret.Data[bundleKey], bundle) {
		return nil
	}
	if secret.Data == nil {
		secret.Type, secret.Data = corev1.SecretTypeTLS, map[string][]byte{}
	}
	secret.Data[bundleKey] = bundle
	if reason == "" {
		return r.write(ctx, secret)
	}
	certificate, key, err := signer.issue(now, propagation(r.Lifetime), s.dnsNames)
	if err != nil {
		return err
	}
	if secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], err = encode(certificate, key); err != nil {
		return err
	}
	if err := r.write(ctx, secret); err != nil {
		return err
	}
	recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
	r.Log.Info("Issued a serving certificate", "server", s.name, "reason", reason, "authority", signer.id, "notAfter", certificate.NotAfter)
	return nil
}

// recordServingExpiration records the expiry of the existing certificate of a server.
func (r *Rotator) recordServingExpiration(ctx context.Context, s server) {
	secret := &corev1.Secret{}
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: s.secret}, secret); err == nil {
		recordExpiration(s.name, secret.Data[corev1.TLSCertKey])
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// bundleKey is where ConfigMaps and TLS Secrets have the certificates to verify with.
const bundleKey = "ca.crt"

// bundleOf returns the certificates to verify with, in PEM.
func bundleOf(authorities []authority) []byte {
	var certificates []*x509.Certificate
	for _, a := range authorities {
		certificates = append(certificates, a.certificate)
	}
	return encodeCertificates(certificates...)
}

// trust is the authorities to verify with.
type trust struct {
	authorities []authority
	partial     bool // others may be trusted, of which nothing is known
}

// over returns the certificates, in PEM, that are to be where these were. None of them goes while others may be trusted.
func (t trust) over(previousPEM []byte) []byte {
	if !t.partial {
		return bundleOf(t.authorities)
	}
	certificates, _ := cert.ParseCertsPEM(previousPEM) // without any, nothing is lost
	for _, a := range t.authorities {
		if !slices.ContainsFunc(certificates, a.certificate.Equal) {
			certificates = append(certificates, a.certificate)
		}
	}
	return encodeCertificates(certificates...)
}

// publish writes the ConfigMap if it has to say something else than it did.
func (r *Rotator) publish(ctx context.Context, configMap *corev1.ConfigMap, authorities []authority) error {
	before := configMap.DeepCopy()
	configMap.Data = map[string]string{bundleKey: string(bundleOf(authorities))}
	if equality.Semantic.DeepEqual(before, configMap) {
		return nil
	}
	return r.write(ctx, configMap)
}

// tellWebhooks tells the API server whom to trust when it calls the webhooks. Where they are not registered, nobody calls.
func (r *Rotator) tellWebhooks(ctx context.Context, trust trust) error {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err := r.Client.Get(ctx, client.ObjectKey{Name: r.WebhookConfiguration}, configuration)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	before := configuration.DeepCopy()
	for i := range configuration.Webhooks {
		called := &configuration.Webhooks[i].ClientConfig
		called.CABundle = trust.over(called.CABundle)
	}
	if equality.Semantic.DeepEqual(before, configuration) {
		return nil
	}
	// A patch, which leaves alone what this program's version of the API does not know of.
	patch := client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, configuration, patch); err != nil {
		return fmt.Errorf("write the ValidatingWebhookConfiguration %q: %w", r.WebhookConfiguration, err)
	}
	return nil
}

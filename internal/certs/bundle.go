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

// bundleKey is the key of the CA bundle in ConfigMaps and TLS Secrets.
const bundleKey = "ca.crt"

// encodeBundle returns the CA bundle of the authorities, in PEM.
func encodeBundle(authorities []authority) []byte {
	var certificates []*x509.Certificate
	for _, a := range authorities {
		certificates = append(certificates, a.certificate)
	}
	return encodeCertificates(certificates...)
}

// trustAnchors are the authorities that clients verify with.
type trustAnchors struct {
	authorities []authority
	incomplete  bool // clients may trust further authorities, which the Rotator could not read
}

// mergeBundles returns the CA bundle that replaces the previous one, in PEM. While the anchors are incomplete, it keeps all previous
// certificates.
func mergeBundles(previousPEM []byte, anchors trustAnchors) []byte {
	if !anchors.incomplete {
		return encodeBundle(anchors.authorities)
	}
	certificates, _ := cert.ParseCertsPEM(previousPEM) // an unusable bundle has none to keep
	for _, a := range anchors.authorities {
		if !slices.ContainsFunc(certificates, a.certificate.Equal) {
			certificates = append(certificates, a.certificate)
		}
	}
	return encodeCertificates(certificates...)
}

// publish writes the CA bundle to the ConfigMap if it has changed.
func (r *Rotator) publish(ctx context.Context, configMap *corev1.ConfigMap, authorities []authority) error {
	before := configMap.DeepCopy()
	configMap.Data = map[string]string{bundleKey: string(encodeBundle(authorities))}
	if equality.Semantic.DeepEqual(before, configMap) {
		return nil
	}
	return r.write(ctx, configMap)
}

// injectCABundle writes the CA bundle to the ValidatingWebhookConfiguration, if that exists.
func (r *Rotator) injectCABundle(ctx context.Context, anchors trustAnchors) error {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err := r.Client.Get(ctx, client.ObjectKey{Name: r.WebhookConfiguration}, configuration)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	before := configuration.DeepCopy()
	for i := range configuration.Webhooks {
		clientConfig := &configuration.Webhooks[i].ClientConfig
		clientConfig.CABundle = mergeBundles(clientConfig.CABundle, anchors)
	}
	if equality.Semantic.DeepEqual(before, configuration) {
		return nil
	}
	// A patch keeps fields that this version of the API does not know.
	patch := client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, configuration, patch); err != nil {
		return fmt.Errorf("write the ValidatingWebhookConfiguration %q: %w", r.WebhookConfiguration, err)
	}
	return nil
}

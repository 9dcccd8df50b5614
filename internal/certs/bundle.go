// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"errors"
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

// bundles are the ConfigMaps of the CA bundle.
type bundles struct {
	own           *corev1.ConfigMap // in the Rotator's namespace
	unpublishable error             // why that cannot be written

	consoles        []*corev1.ConfigMap // in the namespaces of consoles, whose clients may not read the Rotator's namespace
	consoleProblems []error             // why some of those cannot be written
}

// readBundles reads all ConfigMaps of the CA bundle.
func (r *Rotator) readBundles(ctx context.Context) *bundles {
	b := &bundles{own: &corev1.ConfigMap{}}
	b.unpublishable = r.read(ctx, r.Namespace, BundleConfigMap, b.own)
	for _, namespace := range r.ConsoleNamespaces {
		if namespace == r.Namespace {
			continue
		}
		configMap := &corev1.ConfigMap{}
		switch err := r.read(ctx, namespace, BundleConfigMap, configMap); {
		case err == nil:
			b.consoles = append(b.consoles, configMap)
		case !errors.As(err, new(notManagedError)): // the Secret of the console holds the bundle too
			b.consoleProblems = append(b.consoleProblems, err)
		}
	}
	return b
}

// publish writes the CA bundle to the ConfigMaps that differ from it. A failure in the namespace of a console is not an error, so that it
// does not affect other servers.
func (r *Rotator) publish(ctx context.Context, b *bundles, authorities []authority) error {
	for _, configMap := range b.consoles {
		if err := r.publishIn(ctx, configMap, authorities); err != nil {
			b.consoleProblems = append(b.consoleProblems, err)
		}
	}
	return r.publishIn(ctx, b.own, authorities)
}

func (r *Rotator) publishIn(ctx context.Context, configMap *corev1.ConfigMap, authorities []authority) error {
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

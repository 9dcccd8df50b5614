// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// bundleKey is where ConfigMaps and TLS Secrets have the certificates to verify with.
	bundleKey = "ca.crt"

	// signsFromPrefix and the id of an authority make the annotation of the bundle that says from when on it may sign.
	signsFromPrefix = "signs-from.keys.squirrel.dev/"
)

// bundle is the ConfigMap of the certificates to verify with.
type bundle struct{ *corev1.ConfigMap }

// bundleOf returns the certificates to verify with, in PEM.
func bundleOf(authorities []authority) []byte {
	var certificates []*x509.Certificate
	for _, a := range authorities {
		certificates = append(certificates, a.certificate)
	}
	return encodeCertificates(certificates...)
}

func (k *Keeper) readBundle(ctx context.Context) (bundle, error) {
	configMap := &corev1.ConfigMap{}
	if err := k.read(ctx, BundleConfigMap, configMap); err != nil {
		return bundle{}, err
	}
	return bundle{configMap}, nil
}

// signsFrom returns from when on each of the authorities may sign that are published.
func (b bundle) signsFrom(authorities []authority) map[string]time.Time {
	certificates, _ := cert.ParseCertsPEM([]byte(b.Data[bundleKey])) // up to one that is damaged
	signsFrom := map[string]time.Time{}
	for _, a := range authorities {
		from, err := time.Parse(time.RFC3339, b.Annotations[signsFromPrefix+a.id])
		if err == nil && slices.ContainsFunc(certificates, a.certificate.Equal) {
			signsFrom[a.id] = from
		}
	}
	return signsFrom
}

// publish writes the ConfigMap if it has to say something else.
func (k *Keeper) publish(ctx context.Context, published bundle, authorities []authority, signsFrom map[string]time.Time) error {
	before := published.DeepCopy()
	published.Data = map[string]string{bundleKey: string(bundleOf(authorities))}
	maps.DeleteFunc(published.Annotations, func(name, _ string) bool { return strings.HasPrefix(name, signsFromPrefix) })
	if published.Annotations == nil {
		published.Annotations = map[string]string{}
	}
	for id, from := range signsFrom {
		published.Annotations[signsFromPrefix+id] = from.UTC().Format(time.RFC3339)
	}
	if equality.Semantic.DeepEqual(before, published.ConfigMap) {
		return nil
	}
	if err := k.write(ctx, published.ConfigMap); err != nil {
		return err
	}
	log.FromContext(ctx).Info("the bundle was published", "signsFrom", signsFrom)
	return nil
}

// tellWebhooks tells the API server whom to trust when it calls the webhooks. Where they are not registered, nobody calls.
func (k *Keeper) tellWebhooks(ctx context.Context, trust []byte) error {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err := k.Client.Get(ctx, client.ObjectKey{Name: k.WebhookConfiguration}, configuration)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	before := configuration.DeepCopy()
	for i := range configuration.Webhooks {
		configuration.Webhooks[i].ClientConfig.CABundle = trust
	}
	if equality.Semantic.DeepEqual(before, configuration) {
		return nil
	}
	// A patch, which leaves alone what this program's version of the API does not know of.
	patch := client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})
	if err := k.Client.Patch(ctx, configuration, patch); err != nil {
		return fmt.Errorf("write the ValidatingWebhookConfiguration %q: %w", k.WebhookConfiguration, err)
	}
	return nil
}

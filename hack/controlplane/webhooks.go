// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

const fieldManager = "embedded-control-plane"

// RegisterWebhooks applies the ValidatingWebhookConfiguration of a file with a loopback port instead of the Service, and returns its name.
// It writes a serving certificate for the webhooks to certDir, as tls.crt and tls.key.
func (p *ControlPlane) RegisterWebhooks(ctx context.Context, file string, port int, certDir string) (name string, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := yaml.UnmarshalStrict(content, configuration); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	for i := range configuration.Webhooks {
		p.useLoopback(&configuration.Webhooks[i].ClientConfig, port)
	}
	if err := p.writeServingCertificate(certDir); err != nil {
		return "", err
	}
	manifest, err := yaml.Marshal(configuration)
	if err != nil {
		return "", err
	}
	_, err = p.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, configuration.Name, types.ApplyYAMLPatchType,
		manifest, metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)})
	return configuration.Name, err
}

func (p *ControlPlane) useLoopback(webhook *admissionregistrationv1.WebhookClientConfig, port int) {
	var path string
	if webhook.Service != nil && webhook.Service.Path != nil {
		path = strings.TrimPrefix(*webhook.Service.Path, "/")
	}
	webhook.URL = new(fmt.Sprintf("https://%s:%d/%s", loopback, port, path))
	webhook.Service = nil
	webhook.CABundle = p.authority.pem()
}

func (p *ControlPlane) writeServingCertificate(dir string) error {
	serving, err := p.authority.issueServing("webhook", nil, loopback)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), serving.certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tls.key"), serving.key, 0o600)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// SecretSource provides a TLS server with the certificate of a Secret, which it reads every 10 seconds. It runs in every replica.
type SecretSource struct {
	client  client.Reader
	secret  client.ObjectKey
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
}

// NewSecretSource returns a SecretSource for a Secret of type kubernetes.io/tls. The client must not cache Secrets.
func NewSecretSource(live client.Reader, secret client.ObjectKey, log *slog.Logger) *SecretSource {
	return &SecretSource{client: live, secret: secret, log: log}
}

// NeedLeaderElection makes the manager start the SecretSource in every replica.
func (*SecretSource) NeedLeaderElection() bool { return false }

// GetCertificate is the callback of a [tls.Config]. It fails until the Secret has been read.
func (s *SecretSource) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if current := s.current.Load(); current != nil {
		return current, nil
	}
	return nil, fmt.Errorf("the Secret %q has no certificate yet", s.secret.Name)
}

// Start reads the Secret until the context is done. If a read fails, the previous certificate stays in use.
func (s *SecretSource) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.read(ctx); err != nil && ctx.Err() == nil {
			s.log.Info("Cannot read the serving certificate; retrying", "reason", err.Error())
		}
		delay := interval
		if s.current.Load() == nil {
			delay = firstDelay
		}
		sleep(ctx, delay)
	}
	return nil
}

func (s *SecretSource) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	secret := &corev1.Secret{}
	if err := s.client.Get(ctx, s.secret, secret); err != nil {
		return err
	}
	certificate, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("the Secret %q: %w", s.secret.Name, err)
	}
	previous := s.current.Swap(&certificate)
	if previous == nil || !previous.Leaf.Equal(certificate.Leaf) {
		s.log.Info("Loaded the serving certificate", "secret", s.secret.Name, "notAfter", certificate.Leaf.NotAfter)
	}
	return nil
}

func sleep(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}

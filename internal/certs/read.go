// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Reader reads the certificate of a Secret, again and again, for a server that has it in no file. It runs in every replica.
type Reader struct {
	client  client.Reader
	secret  client.ObjectKey
	current atomic.Pointer[tls.Certificate]
}

// NewReader returns a Reader of a Secret of type kubernetes.io/tls, whose client has no cache.
func NewReader(live client.Reader, secret client.ObjectKey) *Reader {
	return &Reader{client: live, secret: secret}
}

// NeedLeaderElection says that every replica reads.
func (r *Reader) NeedLeaderElection() bool { return false }

// GetCertificate returns the certificate for a [tls.Config]; until there is one, an error.
func (r *Reader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if current := r.current.Load(); current != nil {
		return current, nil
	}
	return nil, fmt.Errorf("the Secret %q has no certificate yet", r.secret.Name)
}

// Start reads until the context is done. What cannot be read leaves the certificate as it was.
func (r *Reader) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.read(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Info("the serving certificate cannot be read; trying again", "reason", err.Error())
		}
		delay := interval
		if r.current.Load() == nil {
			delay = firstDelay
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
	return nil
}

func (r *Reader) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	secret := &corev1.Secret{}
	if err := r.client.Get(ctx, r.secret, secret); err != nil {
		return err
	}
	certificate, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("the Secret %q: %w", r.secret.Name, err)
	}
	previous := r.current.Swap(&certificate)
	if previous == nil || !previous.Leaf.Equal(certificate.Leaf) {
		log.FromContext(ctx).Info("serving with a certificate", "secret", r.secret.Name, "notAfter", certificate.Leaf.NotAfter)
	}
	return nil
}

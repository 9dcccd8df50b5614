// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"squirrel.dev/apikey-operator/internal/serving"
)

// tlsFlags are how the ports that API keys are sent to are protected.
type tlsFlags struct {
	certFile, keyFile string
	plaintext         bool
}

func (f *tlsFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.certFile, "tls-cert-file", "", "PEM file of the serving certificate and its chain; read again when it changes.")
	flags.StringVar(&f.keyFile, "tls-private-key-file", "", "PEM file of the certificate's private key; read again when it changes.")
	flags.BoolVar(&f.plaintext, "plaintext", false,
		"Serve without TLS, so that API keys go unprotected: only for loopback, or behind a sidecar that encrypts.")
}

func (f *tlsFlags) validate() error {
	switch filesGiven := f.certFile != "" || f.keyFile != ""; {
	case f.plaintext && filesGiven:
		return errors.New("--plaintext contradicts --tls-cert-file and --tls-private-key-file: give the one or the others")
	case !f.plaintext && (f.certFile == "" || f.keyFile == ""):
		return errors.New("--tls-cert-file and --tls-private-key-file are required; only on loopback, or behind a sidecar that encrypts, " +
			"give --plaintext instead")
	}
	return nil
}

// config returns what the servers of a process serve with, which reads the certificate again while they run. It is nil without TLS.
func (f *tlsFlags) config(servers *serving.Process) (*tls.Config, error) {
	if f.plaintext {
		return nil, nil
	}
	certificate, err := certwatcher.New(f.certFile, f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("the serving certificate cannot be used: %w", err)
	}
	servers.AddWork(certificate.Start)
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.GetCertificate}, nil
}

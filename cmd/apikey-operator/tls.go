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

// tlsFlags are the flags of TLS for the ports that receive API keys.
type tlsFlags struct {
	certFile, keyFile string
	plaintext         bool
}

func (f *tlsFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.certFile, "tls-cert-file", "",
		"File with the serving certificate and its chain in PEM, which is reloaded when it changes.")
	flags.StringVar(&f.keyFile, "tls-private-key-file", "",
		"File with the private key of --tls-cert-file in PEM, which is reloaded when it changes.")
	flags.BoolVar(&f.plaintext, "plaintext", false,
		"Serve without TLS, which exposes API keys unless clients connect over loopback or through a sidecar that encrypts.")
}

func (f *tlsFlags) validate() error {
	switch filesGiven := f.certFile != "" || f.keyFile != ""; {
	case f.plaintext && filesGiven:
		return errors.New("--plaintext and --tls-cert-file with --tls-private-key-file are mutually exclusive")
	case !f.plaintext && (f.certFile == "" || f.keyFile == ""):
		return errors.New("--tls-cert-file and --tls-private-key-file are required, unless --plaintext disables TLS, " +
			"which is safe only on loopback or behind a sidecar that encrypts")
	}
	return nil
}

// config returns the TLS configuration of servers, which reloads the certificate. It is nil without TLS.
func (f *tlsFlags) config(servers *serving.Process) (*tls.Config, error) {
	if f.plaintext {
		return nil, nil
	}
	certificate, err := loadCertificate(servers, f.certFile, f.keyFile)
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate}, err
}

// getCertificate is the callback of a [tls.Config].
type getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// loadCertificate loads a serving certificate. The process reloads it while it runs.
func loadCertificate(servers *serving.Process, certFile, keyFile string) (getCertificate, error) {
	watcher, err := certwatcher.New(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load the serving certificate: %w", err)
	}
	servers.AddRunnable(watcher.Start)
	return watcher.GetCertificate, nil
}

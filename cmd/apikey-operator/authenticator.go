// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// authenticator answers gateways, and writes nothing.
type authenticator struct {
	operationsFlags
	listenAddress            string
	certFile, keyFile        string
	plaintext                bool
	maxStaleness             time.Duration
	shutdownDelay            time.Duration
	insufficientAccessStatus int
}

func newAuthenticatorCommand() *cobra.Command {
	a := &authenticator{}
	command := &cobra.Command{
		Use:   "authenticator",
		Short: "Answer gateways that ask whether an API key is good",
		Args:  cobra.NoArgs,
		RunE:  runDaemon(a),
	}
	flags := command.Flags()
	a.register(flags)
	flags.StringVar(&a.listenAddress, "listen-address", ":8443", "Address that gateways ask.")
	flags.StringVar(&a.certFile, "tls-cert-file", "", "PEM file of the serving certificate and its chain; read again when it changes.")
	flags.StringVar(&a.keyFile, "tls-private-key-file", "", "PEM file of the certificate's private key; read again when it changes.")
	flags.BoolVar(&a.plaintext, "plaintext", false,
		"Serve plain HTTP at --listen-address, where API keys then go unprotected: only for loopback, or behind a sidecar that encrypts.")
	flags.DurationVar(&a.maxStaleness, "max-staleness", 0,
		"How long to go on answering from memory, at least 2m, when the Kubernetes API says nothing; 0 is without bound.")
	flags.DurationVar(&a.shutdownDelay, "shutdown-delay", 5*time.Second,
		"How long to go on answering, while not ready, after the signal to stop: until then others may not know that this process goes.")
	flags.IntVar(&a.insufficientAccessStatus, "insufficient-access-status", http.StatusUnauthorized,
		"HTTP status for a good key that lacks the right: 401 or 403.")
	return command
}

func (a *authenticator) validate() error {
	if err := a.operationsFlags.validate(); err != nil {
		return err
	}
	if err := validateAddress("listen-address", a.listenAddress); err != nil {
		return err
	}
	switch filesGiven := a.certFile != "" || a.keyFile != ""; {
	case a.plaintext && filesGiven:
		return errors.New("--plaintext contradicts --tls-cert-file and --tls-private-key-file: give the one or the others")
	case !a.plaintext && (a.certFile == "" || a.keyFile == ""):
		return errors.New("--tls-cert-file and --tls-private-key-file are required; only on loopback, or behind a sidecar that encrypts, " +
			"give --plaintext instead")
	}
	if a.maxStaleness != 0 && a.maxStaleness < authn.MinStaleness {
		return fmt.Errorf("--max-staleness=%s is too short: when nothing changes the Kubernetes API says something about once a minute, "+
			"so give at least %s, or 0 for no bound", a.maxStaleness, authn.MinStaleness)
	}
	if a.shutdownDelay < 0 {
		return fmt.Errorf("--shutdown-delay=%s is negative: give 0 or more", a.shutdownDelay)
	}
	if a.insufficientAccessStatus != http.StatusUnauthorized && a.insufficientAccessStatus != http.StatusForbidden {
		return fmt.Errorf("--insufficient-access-status=%d is not allowed: give 401 or 403", a.insufficientAccessStatus)
	}
	return nil
}

func (a *authenticator) run(ctx context.Context) error {
	kubernetes, err := kubernetesConfig("authenticator")
	if err != nil {
		return err
	}
	log := slog.Default()
	servers := serving.NewProcess(log, a.shutdownDelay)
	tlsConfig, err := a.tlsConfig(servers)
	if err != nil {
		return err
	}
	keyring := authn.NewKeyring()
	decider := authn.NewAuthenticator(keyring, a.maxStaleness, time.Now)

	servers.AddWork(func(ctx context.Context) error { return keyring.Run(ctx, kubernetes, metav1.NamespaceAll) })
	servers.AddServer("authenticator", a.listenAddress, tlsConfig, gateway.NewHandler(decider, gateway.Options{
		InsufficientAccessStatus: a.insufficientAccessStatus,
		Metrics:                  gateway.NewMetrics(metrics.Registry, keyring),
		Log:                      log,
	}))
	if a.metricsAddress != off {
		servers.AddServer("metrics", a.metricsAddress, nil, promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	}
	if a.healthAddress != off {
		servers.AddHealth(a.healthAddress, decider.Ready)
	}
	return servers.Run(ctx)
}

// tlsConfig returns nil for plain HTTP.
func (a *authenticator) tlsConfig(servers *serving.Process) (*tls.Config, error) {
	if a.plaintext {
		return nil, nil
	}
	certificate, err := certwatcher.New(a.certFile, a.keyFile)
	if err != nil {
		return nil, fmt.Errorf("the serving certificate cannot be used: %w", err)
	}
	servers.AddWork(certificate.Start)
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.GetCertificate}, nil
}

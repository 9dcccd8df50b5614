// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// authenticator answers gateways, and writes nothing.
type authenticator struct {
	operations               operationsFlags
	tls                      tlsFlags
	listenAddress            string
	grpcListenAddress        string
	defaultNamespace         string
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
	a.operations.register(flags)
	a.tls.register(flags)
	flags.StringVar(&a.listenAddress, "listen-address", ":8443", "Address that gateways ask over HTTP.")
	flags.StringVar(&a.grpcListenAddress, "grpc-listen-address", ":9191", "Address that Envoy asks over gRPC (ext_authz v3); 0 is none.")
	flags.StringVar(&a.defaultNamespace, "default-namespace", "",
		"Namespace of the keys that a gRPC check without context_extensions[\"namespace\"] is about. Default: such a check is refused.")
	flags.DurationVar(&a.maxStaleness, "max-staleness", 0,
		"How long to go on answering from memory, at least 2m, when the Kubernetes API says nothing; 0 is without bound.")
	flags.DurationVar(&a.shutdownDelay, "shutdown-delay", 5*time.Second,
		"How long to go on answering, while not ready, after the signal to stop: until then others may not know that this process goes.")
	flags.IntVar(&a.insufficientAccessStatus, "insufficient-access-status", http.StatusUnauthorized,
		"HTTP status for a good key that lacks the right: 401 or 403.")
	return command
}

func (a *authenticator) validate() error {
	if err := cmp.Or(
		a.operations.validate(),
		validateAddress("listen-address", a.listenAddress),
		validateAddressOrOff("grpc-listen-address", a.grpcListenAddress),
		validateNamespace("default-namespace", a.defaultNamespace),
		a.tls.validate(),
	); err != nil {
		return err
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
	tlsConfig, err := a.tls.config(servers)
	if err != nil {
		return err
	}
	keyring := authn.NewKeyring()
	decider := authn.NewAuthenticator(keyring, a.maxStaleness, time.Now)

	servers.AddWork(func(ctx context.Context) error { return keyring.Run(ctx, kubernetes, metav1.NamespaceAll) })
	options := gateway.Options{
		InsufficientAccessStatus: a.insufficientAccessStatus,
		Metrics:                  gateway.NewMetrics(metrics.Registry, keyring),
		Log:                      log,
	}
	servers.AddServer("authenticator", a.listenAddress, tlsConfig, gateway.NewHandler(decider, options))
	if a.grpcListenAddress != off {
		servers.AddGRPCServer("grpc", a.grpcListenAddress, tlsConfig, decider.Ready, func(registrar grpc.ServiceRegistrar) {
			gateway.RegisterEnvoy(registrar, decider, a.defaultNamespace, options)
		})
	}
	if a.operations.metricsAddress != off {
		servers.AddServer("metrics", a.operations.metricsAddress, nil, promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	}
	if a.operations.healthAddress != off {
		servers.AddHealth(a.operations.healthAddress, decider.Ready)
	}
	return servers.Run(ctx)
}

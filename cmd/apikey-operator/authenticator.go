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

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// authenticator answers gateways, and writes nothing.
type authenticator struct {
	server                   serverFlags
	grpcListenAddress        string
	defaultNamespace         string
	maxStaleness             time.Duration
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
	a.server.register(flags, "Address that gateways ask over HTTP.")
	flags.StringVar(&a.grpcListenAddress, "grpc-listen-address", ":9191", "Address that Envoy asks over gRPC (ext_authz v3); 0 is none.")
	flags.StringVar(&a.defaultNamespace, "default-namespace", "",
		"Namespace of the keys that a gRPC check without context_extensions[\"namespace\"] is about. Default: such a check is refused.")
	flags.DurationVar(&a.maxStaleness, "max-staleness", 0,
		"How long to go on answering from memory, at least 2m, when the Kubernetes API says nothing; 0 is without bound.")
	flags.IntVar(&a.insufficientAccessStatus, "insufficient-access-status", http.StatusUnauthorized,
		"HTTP status for a good key that lacks the right: 401 or 403.")
	return command
}

func (a *authenticator) validate() error {
	if err := cmp.Or(
		a.server.validate(),
		validateAddressOrOff("grpc-listen-address", a.grpcListenAddress),
		validateNamespace("default-namespace", a.defaultNamespace),
	); err != nil {
		return err
	}
	if a.maxStaleness != 0 && a.maxStaleness < authn.MinStaleness {
		return fmt.Errorf("--max-staleness=%s is too short: when nothing changes the Kubernetes API says something about once a minute, "+
			"so give at least %s, or 0 for no bound", a.maxStaleness, authn.MinStaleness)
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
	servers, tlsConfig, err := a.server.newProcess()
	if err != nil {
		return err
	}
	keyring := authn.NewKeyring()
	decider := authn.NewAuthenticator(keyring, a.maxStaleness, time.Now)

	servers.AddWork(func(ctx context.Context) error { return keyring.Run(ctx, kubernetes, metav1.NamespaceAll) })
	options := gateway.Options{
		InsufficientAccessStatus: a.insufficientAccessStatus,
		Metrics:                  gateway.NewMetrics(metrics.Registry, keyring),
		Log:                      slog.Default(),
	}
	servers.AddServer("authenticator", a.server.listenAddress, tlsConfig, gateway.NewHandler(decider, options))
	if a.grpcListenAddress != off {
		servers.AddGRPCServer("grpc", a.grpcListenAddress, tlsConfig, decider.Ready, func(registrar grpc.ServiceRegistrar) {
			gateway.RegisterEnvoy(registrar, decider, a.defaultNamespace, options)
		})
	}
	a.server.operations.addServers(servers, decider.Ready)
	return servers.Run(ctx)
}

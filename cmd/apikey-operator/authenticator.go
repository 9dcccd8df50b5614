// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// authenticator is the subcommand that checks keys for gateways. It writes nothing to the Kubernetes API.
type authenticator struct {
	server                   serverFlags
	namespaces               []string
	grpcListenAddress        string
	defaultNamespace         string
	maxStaleness             time.Duration
	insufficientAccessStatus int
	usage                    usageServerFlags
}

func newAuthenticatorCommand() *cobra.Command {
	a := &authenticator{}
	command := &cobra.Command{
		Use:   "authenticator",
		Short: "Check API keys for gateways",
		Args:  cobra.NoArgs,
		RunE:  runDaemon(a),
	}
	flags := command.Flags()
	a.server.register(flags, "The address on which to serve gateways over HTTP.")
	registerNamespaces(flags, &a.namespaces)
	flags.StringVar(&a.grpcListenAddress, "grpc-listen-address", ":9191",
		"The address on which to serve Envoy over gRPC (ext_authz v3); 0 disables it.")
	flags.StringVar(&a.defaultNamespace, "default-namespace", "",
		"The namespace of the keys for gRPC checks without context_extensions[\"namespace\"]; by default such checks are denied.")
	flags.DurationVar(&a.maxStaleness, "max-staleness", 0, fmt.Sprintf(
		"How long to check keys from memory while the Kubernetes API is unavailable, at least %s; 0 is unlimited.",
		authn.MinStaleness))
	flags.IntVar(&a.insufficientAccessStatus, "insufficient-access-status", http.StatusUnauthorized,
		"The HTTP status of the response to a valid key that lacks the required access: 401 or 403.")
	a.usage.register(flags)
	return command
}

func (a *authenticator) validate() error {
	if err := cmp.Or(
		a.server.validate(),
		validateAddressOrOff("grpc-listen-address", a.grpcListenAddress),
		validateNamespaces("namespaces", a.namespaces),
		validateNamespace("default-namespace", a.defaultNamespace),
		a.usage.validate(),
	); err != nil {
		return err
	}
	if a.defaultNamespace != "" && len(a.namespaces) > 0 && !slices.Contains(a.namespaces, a.defaultNamespace) {
		return fmt.Errorf("--default-namespace=%s is not one of --namespaces=%s: add it there", a.defaultNamespace,
			strings.Join(a.namespaces, ","))
	}
	if a.maxStaleness != 0 && a.maxStaleness < authn.MinStaleness {
		return fmt.Errorf("--max-staleness=%s is too short, because the Kubernetes API sends a bookmark only about once a minute: "+
			"use at least %s, or 0 for no limit", a.maxStaleness, authn.MinStaleness)
	}
	if a.insufficientAccessStatus != http.StatusUnauthorized && a.insufficientAccessStatus != http.StatusForbidden {
		return fmt.Errorf("--insufficient-access-status=%d is not supported: use 401 or 403", a.insufficientAccessStatus)
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
	keys, watch := a.newKeys()
	servers.AddRunnable(func(ctx context.Context) error { return watch(ctx, kubernetes) })
	authenticator := authn.NewAuthenticator(keys, a.maxStaleness, time.Now)
	a.addGatewayServers(servers, tlsConfig, keys, authenticator)
	if err := a.usage.addServer(servers, tlsConfig, kubernetes, authenticator); err != nil {
		return err
	}
	a.server.operations.addServers(servers, authenticator.Ready)
	return servers.Run(ctx)
}

// newKeys returns the keys in memory, which are empty, and the function that keeps them up to date.
func (a *authenticator) newKeys() (keys authn.KeySource, watch func(context.Context, *rest.Config) error) {
	if len(a.namespaces) > 0 {
		keyrings := authn.NewKeyrings(a.namespaces)
		return keyrings, keyrings.Run
	}
	keyring := authn.NewKeyring()
	return keyring, func(ctx context.Context, kubernetes *rest.Config) error {
		return keyring.Run(ctx, kubernetes, metav1.NamespaceAll)
	}
}

func (a *authenticator) addGatewayServers(
	servers *serving.Process, tlsConfig *tls.Config, keys authn.KeySource, authenticator *authn.Authenticator,
) {
	options := gateway.Options{
		InsufficientAccessStatus: a.insufficientAccessStatus,
		Metrics:                  gateway.NewMetrics(metrics.Registry, keys),
		Log:                      slog.Default(),
	}
	servers.AddServer("authenticator", a.server.listenAddress, tlsConfig, gateway.NewHandler(authenticator, options))
	if a.grpcListenAddress == off {
		return
	}
	servers.AddGRPCServer("grpc", a.grpcListenAddress, tlsConfig, authenticator.Ready, func(registrar grpc.ServiceRegistrar) {
		gateway.RegisterEnvoy(registrar, authenticator, a.defaultNamespace, options)
	})
}

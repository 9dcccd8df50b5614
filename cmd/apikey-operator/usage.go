// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/spf13/pflag"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/usage"
)

// usageServerFlags are the flags of an authenticator that reports the last uses of tokens.
type usageServerFlags struct {
	listenAddress string
	reader        string
}

func (f *usageServerFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.listenAddress, "usage-listen-address", off,
		"The address on which to report the last uses of tokens to the controller, for example :8444; 0 disables it.")
	flags.StringVar(&f.reader, "usage-reader", "",
		"The ServiceAccount that may read the last uses of tokens, as namespace/name; defaults to "+controllerAccount+
			" in the namespace of the pod.")
}

func (f *usageServerFlags) validate() error {
	if err := validateAddressOrOff("usage-listen-address", f.listenAddress); err != nil || f.listenAddress == off {
		return err
	}
	if f.reader == "" {
		namespace, err := podNamespace("usage-reader")
		if err != nil {
			return err
		}
		f.reader = namespace + "/" + controllerAccount
	}
	if namespace, name, found := strings.Cut(f.reader, "/"); !found || namespace == "" || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("--usage-reader=%q is not a ServiceAccount: use namespace/name", f.reader)
	}
	return nil
}

// addServer adds the server of the report.
func (f *usageServerFlags) addServer(
	servers *serving.Process, tlsConfig *tls.Config, kubernetes *rest.Config, authenticator *authn.Authenticator,
) error {
	if f.listenAddress == off {
		return nil
	}
	client, err := authenticationclient.NewForConfig(kubernetes)
	if err != nil {
		return fmt.Errorf("create a client for TokenReviews: %w", err)
	}
	username := "system:serviceaccount:" + strings.ReplaceAll(f.reader, "/", ":")
	reviewer := usage.NewReviewer(client.TokenReviews(), username, slog.Default())
	servers.AddRunnable(authenticator.CountMinutes)
	servers.AddOperationsServer("usage", f.listenAddress, tlsConfig, usage.NewHandler(authenticator, reviewer))
	return nil
}

// usageClientFlags are the flags of a controller that collects the last uses of tokens.
type usageClientFlags struct {
	endpoints []string
	options   controllers.UsageOptions
}

func (f *usageClientFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.endpoints, "usage-endpoints", nil,
		"The URLs of authenticators from which to collect the last uses of tokens, separated by commas, for example "+
			"https://apikey-authenticator-usage:8444; each address of a host is one authenticator.")
	flags.StringVar(&f.options.CAFile, "usage-ca-file", "",
		"File with the CA bundle in PEM that verifies the authenticators of --usage-endpoints; defaults to the CAs of the system.")
	flags.StringVar(&f.options.ServerName, "usage-server-name", "apikey-authenticator",
		"The name in the serving certificates of the authenticators of --usage-endpoints.")
	flags.StringVar(&f.options.TokenFile, "usage-token-file", "",
		"File with a ServiceAccount token of the audience apikey-usage for --usage-endpoints, which is read at each use.")
}

func (f *usageClientFlags) validate() error {
	f.options.Endpoints = nil
	for _, text := range f.endpoints {
		endpoint, err := url.Parse(text)
		if err != nil || (endpoint.Scheme != "https" && endpoint.Scheme != "http") || endpoint.Hostname() == "" || endpoint.Port() == "" ||
			strings.Trim(endpoint.Path, "/") != "" {
			return fmt.Errorf("--usage-endpoints has %q, which is not the URL of an authenticator: use https://host:port", text)
		}
		f.options.Endpoints = append(f.options.Endpoints, endpoint)
	}
	if len(f.endpoints) > 0 && f.options.TokenFile == "" {
		return errors.New("--usage-endpoints requires --usage-token-file")
	}
	return nil
}

// addUsageCollector lets the leader collect the last uses of tokens.
func (c *controller) addUsageCollector(context.Context) error {
	if len(c.usage.options.Endpoints) == 0 {
		return nil
	}
	return c.manager.Add(controllers.NewUsageCollector(c.reconciler, c.usage.options, slog.Default()))
}

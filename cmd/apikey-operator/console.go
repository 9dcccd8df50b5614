// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/console/bootstrap"
	"squirrel.dev/apikey-operator/console/ui"
	"squirrel.dev/apikey-operator/internal/kubeapi"
	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/internal/version"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	keyFileVariable = "APIKEY_OPERATOR_API_KEY_FILE"
	defaultKeyFile  = "data/.api_key"
)

// console is the subcommand that manages the keys of one namespace for users without kubectl. It reads no Secret and writes no status.
type console struct {
	server     serverFlags
	namespace  string
	keyFile    string
	managers   string
	serviceURL string
}

func newConsoleCommand() *cobra.Command {
	c := &console{}
	command := &cobra.Command{
		Use:   "console",
		Short: "Serve the REST API and the web console for the API keys of one namespace",
		Args:  cobra.NoArgs,
		RunE:  runDaemon(c),
	}
	flags := command.Flags()
	c.server.register(flags, "The address on which to serve the REST API and the web console.")
	flags.StringVar(&c.namespace, "namespace", "",
		"The namespace of the keys that the console manages and accepts; defaults to the namespace of the pod.")
	flags.StringVar(&c.managers, "managers", string(api.WriteAccessManages),
		"Which keys may create, change, rotate and deactivate keys: write-access for all keys with write access, or labelled for those of an "+
			"APIKey with the label "+v1alpha1.LabelManager+"=true, which cannot grant an access that they lack.")
	flags.StringVar(&c.keyFile, "api-key-file", keyFileFromEnvironment(),
		"File of the bootstrap key, which is created if it does not exist; empty disables it, and $"+keyFileVariable+" overrides the default "+
			defaultKeyFile+".")
	flags.StringVar(&c.serviceURL, "service-url", "",
		"The URL of the services that accept the keys, such as https://api.example.com, which the web console shows in its examples.")
	return command
}

func keyFileFromEnvironment() string {
	if file, ok := os.LookupEnv(keyFileVariable); ok {
		return file
	}
	return defaultKeyFile
}

func (c *console) validate() error {
	if err := cmp.Or(
		c.server.validate(),
		validateNamespace("namespace", c.namespace),
		c.validateManagers(),
		c.validateServiceURL(),
	); err != nil {
		return err
	}
	var err error
	if c.namespace == "" {
		c.namespace, err = podNamespace("namespace")
	}
	return err
}

func (c *console) validateManagers() error {
	switch api.Managers(c.managers) {
	case api.WriteAccessManages, api.LabelledManage:
		return nil
	default:
		return fmt.Errorf("--managers=%q is not supported: use %s or %s", c.managers, api.WriteAccessManages, api.LabelledManage)
	}
}

func (c *console) validateServiceURL() error {
	if c.serviceURL == "" {
		return nil
	}
	parsed, err := url.Parse(c.serviceURL)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "https" && parsed.Scheme != "http") || parsed.User != nil {
		return fmt.Errorf("--service-url=%q is not the URL of a service: use one such as https://api.example.com", c.serviceURL)
	}
	return nil
}

func (c *console) run(ctx context.Context) error {
	kubernetes, clock, err := c.connect()
	if err != nil {
		return err
	}
	servers, tlsConfig, err := c.server.newProcess()
	if err != nil {
		return err
	}
	keyring := authn.NewKeyring()
	options := api.Options{
		Namespace:     c.namespace,
		Version:       version.String(),
		ServiceURL:    c.serviceURL,
		Managers:      api.Managers(c.managers),
		Authenticator: authn.NewAuthenticator(keyring, 0, time.Now),
		KeyCache:      api.NewKeyCache(keyring),
		Client:        kubernetes,
		APIServerTime: clock.Now,
		Metrics:       api.NewMetrics(metrics.Registry),
		Log:           slog.Default(),
	}
	servers.AddRunnable(func(ctx context.Context) error { return options.KeyCache.Run(ctx, kubernetes, c.namespace) })
	if c.keyFile != "" {
		key, err := bootstrap.New(bootstrap.Config{
			File:          c.keyFile,
			Namespace:     c.namespace,
			Client:        kubernetes,
			Authenticator: options.Authenticator,
			Await:         options.KeyCache.Await,
			Log:           options.Log,
		})
		if err != nil {
			return err
		}
		options.BootstrapReady = key.Ready
		servers.AddRunnable(key.Run)
	}
	handler := api.NewHandler(options)
	servers.AddRunnable(handler.EndUnconfirmed)
	servers.AddServer("console", c.server.listenAddress, tlsConfig, serving.AllowSlowClients(ui.Handler(handler)))
	c.server.operations.addServers(servers, handler.Ready)
	return servers.Run(ctx)
}

// connect returns a client of the Kubernetes API, and a clock that reads the time from the responses to it.
func (c *console) connect() (client.WithWatch, *kubeapi.Clock, error) {
	config, err := kubernetesConfig("console")
	if err != nil {
		return nil, nil, err
	}
	// Without a log: the console follows the API server's clock, so a difference has no effect.
	clock, err := kubeapi.NewClock(config, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	config.WarningHandler = rest.NoWarnings{} // about imported hashes, which here are those of random tokens
	scheme, err := newScheme()
	if err != nil {
		return nil, nil, err
	}
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, nil, fmt.Errorf("create a client of the Kubernetes API: %w", err)
	}
	return kubernetes, clock, nil
}

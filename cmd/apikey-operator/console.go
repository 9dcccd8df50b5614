// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
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
	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/internal/version"
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	keyFileVariable = "APIKEY_OPERATOR_API_KEY_FILE"
	defaultKeyFile  = "data/.api_key"
)

// console lets people and programs without kubectl manage the keys of one namespace. It reads no Secret and writes no status.
type console struct {
	server    serverFlags
	namespace string
	keyFile   string
	managers  string
}

func newConsoleCommand() *cobra.Command {
	c := &console{}
	command := &cobra.Command{
		Use:   "console",
		Short: "Serve the REST API and the web console that manage the API keys of one namespace",
		Args:  cobra.NoArgs,
		RunE:  runDaemon(c),
	}
	flags := command.Flags()
	c.server.register(flags, "Address of the API and the web console.")
	flags.StringVar(&c.namespace, "namespace", "", "Namespace of the keys that are managed, and that count here. Default: that of this pod.")
	flags.StringVar(&c.managers, "managers", string(api.WriteAccessManages),
		"Which keys may create and end keys: write-access is all that have write access; labelled is those whose APIKey has the label "+
			v1alpha1.LabelManager+"=true too, and then none creates a key with an access that it lacks.")
	flags.StringVar(&c.keyFile, "api-key-file", keyFileByDefault(),
		"File of a first key, for a start without kubectl. It is made when it is missing; empty is none. Default: $"+keyFileVariable+", else "+
			defaultKeyFile+".")
	return command
}

func keyFileByDefault() string {
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
		return fmt.Errorf("--managers=%q is unknown: give %s or %s", c.managers, api.WriteAccessManages, api.LabelledManage)
	}
}

func (c *console) run(ctx context.Context) error {
	config, err := kubernetesConfig("console")
	if err != nil {
		return err
	}
	config.WarningHandler = rest.NoWarnings{} // of a hash that was brought, which here is of a token that this process made
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	kubernetes, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("the Kubernetes API cannot be used: %w", err)
	}
	servers, tlsConfig, err := c.server.newProcess()
	if err != nil {
		return err
	}
	keyring, catalog := authn.NewKeyring(), api.NewKeyCache()
	decider := authn.NewAuthenticator(keyring, 0, time.Now)
	bootstrapped, err := c.bootstrap(servers, kubernetes, decider)
	if err != nil {
		return err
	}
	api := api.NewAPI(api.Options{
		Namespace:     c.namespace,
		Version:       version.String(),
		Managers:      api.Managers(c.managers),
		Authenticator: decider,
		KeyCache:      catalog,
		Kubernetes:    kubernetes,
		Bootstrapped:  bootstrapped,
		Metrics:       api.NewMetrics(metrics.Registry),
		Log:           slog.Default(),
	})

	servers.AddWork(func(ctx context.Context) error { return keyring.Run(ctx, config, c.namespace) })
	servers.AddWork(func(ctx context.Context) error { return catalog.Run(ctx, kubernetes, c.namespace) })
	servers.AddServer("console", c.server.listenAddress, tlsConfig, ui.Handler(api))
	c.server.operations.addServers(servers, api.Ready)
	return servers.Run(ctx)
}

// bootstrap adds the key of the key file to the work, and returns what says whether it is settled. Both are nothing without a file.
func (c *console) bootstrap(servers *serving.Process, kubernetes client.WithWatch, decider *authn.Authenticator) (func() error, error) {
	if c.keyFile == "" {
		return nil, nil
	}
	key, err := bootstrap.New(bootstrap.Config{
		File:          c.keyFile,
		Namespace:     c.namespace,
		Client:        kubernetes,
		Authenticator: decider,
		Log:           slog.Default(),
	})
	if err != nil {
		return nil, err
	}
	servers.AddWork(key.Run)
	return key.Ready, nil
}

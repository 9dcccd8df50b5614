// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/certs"
	"squirrel.dev/apikey-operator/internal/kubeapi"
	"squirrel.dev/apikey-operator/internal/serving"
	"squirrel.dev/apikey-operator/webhook/admission"
)

const (
	leaderElectionID = "controller.keys.squirrel.dev"

	// gracefulShutdownTimeout is shorter than the termination grace period of a pod, 30 seconds.
	gracefulShutdownTimeout = 20 * time.Second
)

// controller is the subcommand that issues keys. It alone writes their status and Secrets.
type controller struct {
	operations           operationsFlags
	leaderElect          bool
	systemNamespace      string
	namespaces           []string
	webhook              bool
	webhookListenAddress string
	webhookCertDir       string
	mintCertificates     bool
	consoleNamespaces    []string
	caLifetime           time.Duration
	usage                usageClientFlags

	// Set by run.
	servers     *serving.Process
	kubernetes  *rest.Config
	clock       *kubeapi.Clock
	certificate getCertificate // of the admission webhook
	manager     ctrl.Manager
	reconciler  *controllers.APIKeyReconciler
}

func newControllerCommand() *cobra.Command {
	c := &controller{}
	command := &cobra.Command{
		Use:   "controller",
		Short: "Issue, deactivate and expire API keys, and serve the admission webhook",
		Args:  cobra.NoArgs,
		RunE:  runDaemon(c),
	}
	flags := command.Flags()
	c.operations.register(flags)
	flags.BoolVar(&c.leaderElect, "leader-elect", true,
		"Start a leader election and reconcile only as the leader, which more than one replica requires.")
	flags.StringVar(&c.systemNamespace, "system-namespace", "",
		"The namespace of the leader election lease and of the issued certificates; defaults to the namespace of the pod.")
	registerNamespaces(flags, &c.namespaces)
	flags.BoolVar(&c.webhook, "webhook", true, "Serve the admission webhook.")
	flags.StringVar(&c.webhookListenAddress, "webhook-listen-address", ":9443", "The address on which to serve the admission webhook.")
	flags.StringVar(&c.webhookCertDir, "webhook-cert-dir", "",
		"Directory with the tls.crt and tls.key of the admission webhook, which are reloaded when they change.")
	flags.BoolVar(&c.mintCertificates, "mint-certificates", false,
		"Issue and renew the serving certificates of the authenticator and the admission webhook, and the certificate authority that signs them.")
	flags.StringSliceVar(&c.consoleNamespaces, "console-namespaces", nil,
		"The namespaces with a console for which --mint-certificates also issues the serving certificate, separated by commas.")
	flags.DurationVar(&c.caLifetime, "ca-lifetime", certs.DefaultLifetime, fmt.Sprintf(
		"The lifetime of a certificate authority, at least %s: its successor is created after two thirds of it and signs after another twelfth, "+
			"which is also the lifetime of the serving certificates.", certs.MinLifetime))
	c.usage.register(flags)
	return command
}

func (c *controller) validate() error {
	if err := cmp.Or(
		c.operations.validate(),
		c.validateWebhook(),
		validateNamespace("system-namespace", c.systemNamespace),
		validateNamespaces("namespaces", c.namespaces),
		validateNamespaces("console-namespaces", c.consoleNamespaces),
		c.usage.validate(),
	); err != nil {
		return err
	}
	if c.caLifetime < certs.MinLifetime {
		return fmt.Errorf("--ca-lifetime=%s is too short for pods to load a renewed certificate in time: use at least %s",
			c.caLifetime, certs.MinLifetime)
	}
	if err := c.validateConsoles(); err != nil {
		return err
	}
	var err error
	if c.systemNamespace == "" && (c.leaderElect || c.mintCertificates) {
		c.systemNamespace, err = podNamespace("system-namespace")
	}
	return err
}

func (c *controller) validateConsoles() error {
	if len(c.consoleNamespaces) > 0 && !c.mintCertificates {
		return errors.New("--console-namespaces requires --mint-certificates")
	}
	for _, namespace := range c.consoleNamespaces {
		if len(c.namespaces) > 0 && !slices.Contains(c.namespaces, namespace) {
			return fmt.Errorf("--console-namespaces has %s, which is not one of --namespaces=%s: add it there", namespace,
				strings.Join(c.namespaces, ","))
		}
	}
	return nil
}

func (c *controller) validateWebhook() error {
	if !c.webhook {
		return nil
	}
	switch {
	case c.mintCertificates && c.webhookCertDir != "":
		return errors.New("--mint-certificates and --webhook-cert-dir are mutually exclusive")
	case !c.mintCertificates && c.webhookCertDir == "":
		return errors.New("the admission webhook requires a certificate: set --mint-certificates, or --webhook-cert-dir for another " +
			"certificate, or disable the webhook with --webhook=false")
	}
	if port, err := portOf(c.webhookListenAddress); err != nil || port == 0 {
		return fmt.Errorf("--webhook-listen-address=%q is not an address: use host:port or :port, with a port other than 0",
			c.webhookListenAddress)
	}
	return nil
}

func (c *controller) run(ctx context.Context) error {
	c.servers = serving.NewProcess(serving.Options{Log: slog.Default(), Metrics: metrics.Registry})
	for _, step := range []func(context.Context) error{
		c.connect,
		c.checkIdentity,
		c.loadWebhookCertificate,
		c.createManager,
		c.addIndex,
		c.addReconciler,
		c.addUsageCollector,
		c.addCertificateRotation,
		c.addWebhook,
		c.addServers,
		c.addManager,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return c.servers.Run(ctx)
}

func (c *controller) connect(context.Context) (err error) {
	if c.kubernetes, err = kubernetesConfig("controller"); err != nil {
		return err
	}
	c.clock, err = kubeapi.NewClock(c.kubernetes, time.Now, slog.Default())
	return err
}

// loadWebhookCertificate loads the certificate of --webhook-cert-dir.
func (c *controller) loadWebhookCertificate(context.Context) (err error) {
	if !c.webhook || c.mintCertificates {
		return nil
	}
	c.certificate, err = loadCertificate(c.servers, filepath.Join(c.webhookCertDir, "tls.crt"), filepath.Join(c.webhookCertDir, "tls.key"))
	return err
}

func (c *controller) createManager(context.Context) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	c.manager, err = ctrl.NewManager(c.kubernetes, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(c.namespaces...),
		Client:                        controllers.ClientOptions(),
		LeaderElection:                c.leaderElect,
		LeaderElectionID:              leaderElectionID,
		LeaderElectionNamespace:       c.systemNamespace,
		LeaderElectionReleaseOnCancel: true, // the process exits with the manager
		GracefulShutdownTimeout:       new(gracefulShutdownTimeout),
		Metrics:                       metricsserver.Options{BindAddress: off}, // see addServers
		HealthProbeBindAddress:        off,
		WebhookServer:                 unstartedServer{webhook.NewServer(webhook.Options{})},
	})
	if err != nil {
		return fmt.Errorf("create the manager: %w", err)
	}
	return nil
}

// unstartedServer is a webhook server that the manager does not start, because addServers serves its webhooks.
type unstartedServer struct{ webhook.Server }

// Start implements manager.Runnable.
func (unstartedServer) Start(context.Context) error { return nil }

func (c *controller) addIndex(ctx context.Context) error {
	return apikey.Index(ctx, c.manager.GetFieldIndexer())
}

func (c *controller) addReconciler(context.Context) (err error) {
	controllers.RegisterMetrics(metrics.Registry)
	c.clock.RegisterMetrics(metrics.Registry)
	if c.reconciler, err = controllers.NewAPIKeyReconciler(c.manager, c.clock); err != nil {
		return err
	}
	return c.reconciler.SetupWithManager(c.manager)
}

func (c *controller) addCertificateRotation(context.Context) error {
	if !c.mintCertificates {
		return nil
	}
	live, err := controllers.NewLiveClient(c.manager)
	if err != nil {
		return err
	}
	certs.RegisterMetrics(metrics.Registry)
	recorder := controllers.NewEventRecorder(c.manager)
	rotator := certs.NewRotator(live, recorder, slog.Default(), c.systemNamespace, c.caLifetime, c.clock)
	rotator.ConsoleNamespaces = c.consoleNamespaces
	if !c.webhook {
		rotator.WebhookConfiguration = ""
	}
	if err := c.manager.Add(rotator); err != nil || !c.webhook {
		return err
	}
	source := certs.NewSecretSource(live, client.ObjectKey{Namespace: c.systemNamespace, Name: certs.WebhookSecret}, slog.Default())
	c.certificate = source.GetCertificate
	return c.manager.Add(source)
}

func (c *controller) addWebhook(context.Context) error {
	if !c.webhook {
		return nil
	}
	if err := admission.SetupWebhookWithManager(c.manager); err != nil || c.systemNamespace == "" {
		return err
	}
	probe, err := admission.NewProbe(c.kubernetes, c.manager.GetScheme(), c.systemNamespace, slog.Default(), metrics.Registry)
	if err != nil {
		return err
	}
	return c.manager.Add(probe)
}

// addServers adds the servers. Those of controller-runtime do not limit their clients.
func (c *controller) addServers(context.Context) error {
	ready := cacheSynced(c.manager.GetCache())
	if c.webhook {
		tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.certificate}
		c.servers.AddServer("webhook", c.webhookListenAddress, tlsConfig, c.manager.GetWebhookServer().WebhookMux())
		synced := ready
		ready = func() error {
			_, err := c.certificate(nil)
			return cmp.Or(err, synced())
		}
	}
	c.operations.addServers(c.servers, ready)
	return nil
}

// addManager adds the manager to the process. It stops the manager at the signal, so that another replica can lead while the servers drain.
func (c *controller) addManager(signal context.Context) error {
	c.servers.AddRunnable(func(ctx context.Context) error {
		running, stop := context.WithCancel(signal)
		defer context.AfterFunc(ctx, stop)()
		ended := make(chan error, 1)
		go func() { ended <- c.manager.Start(running) }()
		select {
		case err := <-ended:
			return err
		case <-running.Done():
		}
		if cacheSynced(c.manager.GetCache())() != nil {
			return nil // the manager waits for its cache, even after the signal, and has started nothing else
		}
		return <-ended
	})
	return nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// cacheSynced returns a readiness check that fails until the cache is synced.
func cacheSynced(informers cache.Informers) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if !informers.WaitForCacheSync(ctx) {
			return errors.New("the cache is not synced with the Kubernetes API")
		}
		return nil
	}
}

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
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
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

	// gracefulShutdownTimeout is shorter than the 30 seconds that Kubernetes gives a pod to end.
	gracefulShutdownTimeout = 20 * time.Second
)

// controller issues keys, and is the only one to write their status and Secrets.
type controller struct {
	operationsFlags
	leaderElect          bool
	systemNamespace      string
	webhook              bool
	webhookListenAddress string
	webhookCertDir       string
	mintCertificates     bool
	caLifetime           time.Duration

	minted *certs.Reader // what the admission webhook is served with, when it is minted
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
	c.register(flags)
	flags.BoolVar(&c.leaderElect, "leader-elect", true, "Let one of several replicas work at a time.")
	flags.StringVar(&c.systemNamespace, "system-namespace", "",
		"Namespace of the lease that the replicas elect their leader by, and of the minted certificates. Default: that of this pod.")
	flags.BoolVar(&c.webhook, "webhook", true, "Serve the admission webhook.")
	flags.StringVar(&c.webhookListenAddress, "webhook-listen-address", ":9443", "Address of the admission webhook.")
	flags.StringVar(&c.webhookCertDir, "webhook-cert-dir", "",
		"Directory of the admission webhook's tls.crt and tls.key; they are read again when they change.")
	flags.BoolVar(&c.mintCertificates, "mint-certificates", false,
		"Mint and renew the certificates of the authenticator and the admission webhook, and the authority that signs them.")
	flags.DurationVar(&c.caLifetime, "ca-lifetime", certs.DefaultLifetime, fmt.Sprintf(
		"How long a minted authority is good for, at least %s. The next one is minted after two thirds of it, or at once when less is given, "+
			"and signs after another twelfth. So long serving certificates are good for, too.", certs.MinLifetime))
	return command
}

func (c *controller) validate() error {
	if err := cmp.Or(
		c.operationsFlags.validate(),
		c.validateWebhook(),
		validateNamespace("system-namespace", c.systemNamespace),
	); err != nil {
		return err
	}
	if c.caLifetime < certs.MinLifetime {
		return fmt.Errorf("--ca-lifetime=%s is too short for pods to see a renewed certificate in time: give at least %s",
			c.caLifetime, certs.MinLifetime)
	}
	var err error
	if c.systemNamespace == "" && (c.leaderElect || c.mintCertificates) {
		c.systemNamespace, err = podNamespace("system-namespace")
	}
	return err
}

func (c *controller) validateWebhook() error {
	if !c.webhook {
		return nil
	}
	switch {
	case c.mintCertificates && c.webhookCertDir != "":
		return errors.New("--mint-certificates contradicts --webhook-cert-dir: give the one or the other")
	case !c.mintCertificates && c.webhookCertDir == "":
		return errors.New("--mint-certificates is required, or --webhook-cert-dir with a certificate from elsewhere; " +
			"give --webhook=false to run without the admission webhook")
	}
	if port, err := portOf(c.webhookListenAddress); err != nil || port == 0 {
		return fmt.Errorf("--webhook-listen-address=%q is no address: give host:port or :port, with a port other than 0", c.webhookListenAddress)
	}
	return nil
}

func (c *controller) run(ctx context.Context) error {
	kubernetes, err := kubernetesConfig("controller")
	if err != nil {
		return err
	}
	servers := serving.NewProcess(serving.Options{Log: slog.Default(), Metrics: metrics.Registry})
	certificate, err := c.webhookCertificate(servers)
	if err != nil {
		return err
	}
	clock, err := kubeapi.NewClock(kubernetes, time.Now, slog.Default())
	if err != nil {
		return err
	}
	manager, err := c.newManager(kubernetes)
	if err != nil {
		return err
	}
	if err := c.setUp(ctx, manager, clock); err != nil {
		return err
	}
	c.addServersTo(servers, manager, certificate)
	// The manager stops at once when the process is told to, so that another replica leads while the servers still end.
	servers.AddWork(func(serving context.Context) error {
		running, stop := context.WithCancel(ctx)
		defer context.AfterFunc(serving, stop)()
		return manager.Start(running)
	})
	return servers.Run(ctx)
}

// getCertificate is that of a [tls.Config].
type getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// webhookCertificate returns what reads the certificate that the admission webhook is served with. It is nil without a webhook.
func (c *controller) webhookCertificate(servers *serving.Process) (getCertificate, error) {
	switch {
	case !c.webhook:
		return nil, nil
	case c.mintCertificates:
		return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return c.minted.GetCertificate(hello) }, nil
	}
	certificate, err := certwatcher.New(filepath.Join(c.webhookCertDir, "tls.crt"), filepath.Join(c.webhookCertDir, "tls.key"))
	if err != nil {
		return nil, fmt.Errorf("the admission webhook's certificate cannot be used: %w", err)
	}
	servers.AddWork(certificate.Start)
	return certificate.GetCertificate, nil
}

// addServersTo adds the servers of the controller to those of the process, whose bounds controller-runtime's own do not have.
func (c *controller) addServersTo(servers *serving.Process, manager ctrl.Manager, certificate getCertificate) {
	ready := syncedChecker(manager.GetCache())
	if c.webhook {
		tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate}
		servers.AddServer("webhook", c.webhookListenAddress, tlsConfig, manager.GetWebhookServer().WebhookMux())
		synced := ready
		ready = func() error {
			_, err := certificate(nil)
			return cmp.Or(err, synced())
		}
	}
	c.addServers(servers, ready)
}

func (c *controller) newManager(kubernetes *rest.Config) (ctrl.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	manager, err := ctrl.NewManager(kubernetes, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(),
		Client:                        controllers.ClientOptions(),
		LeaderElection:                c.leaderElect,
		LeaderElectionID:              leaderElectionID,
		LeaderElectionNamespace:       c.systemNamespace,
		LeaderElectionReleaseOnCancel: true, // the process ends when the manager does
		GracefulShutdownTimeout:       new(gracefulShutdownTimeout),
		Metrics:                       metricsserver.Options{BindAddress: off}, // addServersTo adds these
		HealthProbeBindAddress:        off,
		WebhookServer:                 servedElsewhere{webhook.NewServer(webhook.Options{})},
	})
	if err != nil {
		return nil, fmt.Errorf("the controller cannot be set up: %w", err)
	}
	return manager, nil
}

// servedElsewhere is a webhook server that registers webhooks, and does not serve them.
type servedElsewhere struct{ webhook.Server }

// Start implements manager.Runnable.
func (servedElsewhere) Start(context.Context) error { return nil }

// setUp adds to the manager what it manages.
func (c *controller) setUp(ctx context.Context, manager ctrl.Manager, clock *kubeapi.Clock) error {
	if err := apikey.Index(ctx, manager.GetFieldIndexer()); err != nil {
		return err
	}
	reconciler, err := controllers.NewAPIKeyReconciler(manager, clock)
	if err != nil {
		return err
	}
	if err := reconciler.SetupWithManager(manager); err != nil {
		return err
	}
	controllers.RegisterMetrics(metrics.Registry)
	clock.RegisterMetrics(metrics.Registry)
	if err := c.setUpCertificates(manager, clock); err != nil {
		return err
	}
	if !c.webhook {
		return nil
	}
	return admission.SetupWebhookWithManager(manager)
}

// setUpCertificates adds what keeps the certificates, and what reads that of the admission webhook.
func (c *controller) setUpCertificates(manager ctrl.Manager, clock *kubeapi.Clock) error {
	if !c.mintCertificates {
		return nil
	}
	live, err := controllers.NewLiveClient(manager)
	if err != nil {
		return err
	}
	certs.RegisterMetrics(metrics.Registry)
	keeper := certs.NewRotator(live, controllers.NewEventRecorder(manager), c.systemNamespace, c.caLifetime, clock)
	if err := manager.Add(keeper); err != nil || !c.webhook {
		return err
	}
	c.minted = certs.NewReader(live, client.ObjectKey{Namespace: c.systemNamespace, Name: certs.WebhookSecret})
	return manager.Add(c.minted)
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// syncedChecker says whether the cache holds all that it was told to hold.
func syncedChecker(informers cache.Informers) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if !informers.WaitForCacheSync(ctx) {
			return errors.New("the cache is not synced with the Kubernetes API")
		}
		return nil
	}
}

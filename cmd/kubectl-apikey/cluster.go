// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the auth providers that a kubeconfig may name
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/kubeapi"
)

// fieldOwner is the field manager of what this program writes. Flux takes over the fields of managers whose name begins with "kubectl". It
// would then remove the fields that Git does not have, such as the spec.active of a deactivated key.
const fieldOwner = "apikey-cli"

// cluster is the Kubernetes API that the flags and the kubeconfig select.
type cluster struct {
	flags            *genericclioptions.ConfigFlags
	warningsAsErrors bool
}

// newCluster adds the connection flags of kubectl.
func newCluster(flags *pflag.FlagSet) *cluster {
	c := &cluster{flags: genericclioptions.NewConfigFlags(true)}
	c.flags.CacheDir = nil // discovery is not needed
	c.flags.AddFlags(flags)
	flags.BoolVar(&c.warningsAsErrors, "warnings-as-errors", false, "Exit with code 1 if the API server has sent a warning.")
	return c
}

// session is the connection of a command to a cluster, and its output.
type session struct {
	client.WithWatch
	// now returns the API server's time, as known after a response of it. The clock of a laptop may be wrong.
	now         func() time.Time
	namespace   string
	warnings    interface{ WarningCount() int }
	input       io.Reader
	out, errOut io.Writer
}

// in returns the session for another namespace.
func (s *session) in(namespace string) *session {
	other := *s
	other.namespace = namespace
	return &other
}

// run returns the RunE of a subcommand. The errors of do are failures, not errors of usage.
func (c *cluster) run(do func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		s, err := c.connect(command)
		if err == nil {
			err = do(command.Context(), s, args)
		}
		if err == nil && c.warningsAsErrors && s.warnings.WarningCount() > 0 {
			err = errWarnings
		}
		return asFailure(err)
	}
}

var errWarnings = errors.New("the API server has sent a warning, and --warnings-as-errors is set")

func (c *cluster) connect(command *cobra.Command) (*session, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the API server has its own rate limits
	warnings := rest.NewWarningWriter(command.ErrOrStderr(), rest.WarningWriterOptions{Deduplicate: true})
	config.WarningHandler = warnings
	namespace, _, err := c.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	clock, err := kubeapi.NewClock(config, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	connection, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: newMapper(), FieldOwner: fieldOwner})
	if err != nil {
		return nil, err
	}
	return &session{
		WithWatch: connection, now: clock.Now, namespace: namespace, warnings: warnings,
		input: command.InOrStdin(), out: command.OutOrStdout(), errOut: command.ErrOrStderr(),
	}, nil
}

// config returns the address and the credentials of the Kubernetes API. Without any configuration, client-go would use a local address,
// and the error would be misleading.
func (c *cluster) config() (*rest.Config, error) {
	config, err := c.flags.ToRESTConfig()
	if errors.Is(err, fs.ErrNotExist) && *c.flags.KubeConfig != "" {
		return nil, fmt.Errorf("the kubeconfig %q of --kubeconfig does not exist", *c.flags.KubeConfig)
	}
	if err != nil {
		return nil, err
	}
	loader := c.flags.ToRawKubeConfigLoader()
	kubeconfig, err := loader.RawConfig()
	if err == nil && clientcmdapi.IsConfigEmpty(&kubeconfig) && config.Host == clientcmd.ClusterDefaults.Server {
		err = fmt.Errorf("no cluster is configured in %s: set KUBECONFIG or --kubeconfig to a kubeconfig that exists",
			strings.Join(loader.ConfigAccess().GetLoadingPrecedence(), ", "))
	}
	return config, err
}

var namespaceKind = corev1.SchemeGroupVersion.WithKind("Namespace")

// newMapper returns a RESTMapper for the resources of this program, which makes discovery unnecessary.
func newMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, mapped := range []struct {
		kind   schema.GroupVersionKind
		plural string
		scope  meta.RESTScope
	}{
		{keyKind, "apikeys", meta.RESTScopeNamespace}, // client-go would guess "apikeies"
		{corev1.SchemeGroupVersion.WithKind("Secret"), "secrets", meta.RESTScopeNamespace},
		{namespaceKind, "namespaces", meta.RESTScopeRoot},
	} {
		resource := mapped.kind.GroupVersion().WithResource(mapped.plural)
		mapper.AddSpecific(mapped.kind, resource, resource, mapped.scope)
	}
	return mapper
}

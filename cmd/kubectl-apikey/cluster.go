// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"

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
)

// cluster is the Kubernetes API that the flags and the kubeconfig select.
type cluster struct {
	flags *genericclioptions.ConfigFlags
}

// newCluster adds the connection flags of kubectl.
func newCluster(flags *pflag.FlagSet) *cluster {
	c := &cluster{flags: genericclioptions.NewConfigFlags(true)}
	c.flags.CacheDir = nil // discovery is not needed
	c.flags.AddFlags(flags)
	return c
}

// session is the connection of a command to a cluster, and its output.
type session struct {
	client.WithWatch
	namespace   string
	out, errOut io.Writer
}

// run returns the RunE of a subcommand. The errors of do are failures, not errors of usage.
func (c *cluster) run(do func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		s, err := c.connect(command)
		if err == nil {
			err = do(command.Context(), s, args)
		}
		if err != nil {
			return failure{err}
		}
		return nil
	}
}

func (c *cluster) connect(command *cobra.Command) (*session, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the API server has its own rate limits
	config.WarningHandler = rest.NewWarningWriter(command.ErrOrStderr(), rest.WarningWriterOptions{Deduplicate: true})
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
	connection, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: newMapper()})
	if err != nil {
		return nil, err
	}
	return &session{WithWatch: connection, namespace: namespace, out: command.OutOrStdout(), errOut: command.ErrOrStderr()}, nil
}

var errNoCluster = errors.New("no cluster is configured: set KUBECONFIG or --kubeconfig")

// config returns the address and the credentials of the Kubernetes API. Without any configuration, client-go would use a local address,
// and the error would be misleading.
func (c *cluster) config() (*rest.Config, error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	kubeconfig, err := c.flags.ToRawKubeConfigLoader().RawConfig()
	if err == nil && clientcmdapi.IsConfigEmpty(&kubeconfig) && config.Host == clientcmd.ClusterDefaults.Server {
		err = errNoCluster
	}
	return config, err
}

// newMapper returns a RESTMapper for the resources of this program, which makes discovery unnecessary.
func newMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for kind, plural := range map[schema.GroupVersionKind]string{
		keyKind: "apikeys", // client-go would guess "apikeies"
		corev1.SchemeGroupVersion.WithKind("Secret"): "secrets",
	} {
		resource := kind.GroupVersion().WithResource(plural)
		mapper.AddSpecific(kind, resource, resource, meta.RESTScopeNamespace)
	}
	return mapper
}

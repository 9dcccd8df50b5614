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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// cluster is the Kubernetes API that the flags and the kubeconfig name.
type cluster struct {
	flags *genericclioptions.ConfigFlags
}

// newCluster adds the flags that all kubectl commands have.
func newCluster(flags *pflag.FlagSet) *cluster {
	c := &cluster{flags: genericclioptions.NewConfigFlags(true)}
	c.flags.CacheDir = nil // nothing is discovered
	c.flags.AddFlags(flags)
	return c
}

// session is what a command works with.
type session struct {
	client.WithWatch
	namespace   string
	out, errOut io.Writer
}

// run returns the RunE of a subcommand. What do returns is a failure, not a mistake of whoever called.
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
	config.QPS = -1 // the API server itself holds back who asks too much
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

var errNoCluster = errors.New("no cluster is configured: give --kubeconfig, or set KUBECONFIG")

// config is where the Kubernetes API is. With nothing to go by, kubectl takes a local address for it, which would be misleading.
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

// newMapper knows where the resources of this program are, so that nothing need be asked for it.
func newMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for kind, plural := range map[schema.GroupVersionKind]string{
		keyKind: "apikeys",
		corev1.SchemeGroupVersion.WithKind("Secret"): "secrets",
	} {
		resource := kind.GroupVersion().WithResource(plural)
		mapper.AddSpecific(kind, resource, resource, meta.RESTScopeNamespace)
	}
	return mapper
}

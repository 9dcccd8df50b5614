// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllermanager is a kube-controller-manager with only the controllers that a control plane without nodes needs. The official
// program also has the controllers of workloads, volumes and networks. Compiling them would add almost a third to the time of the first
// build.
package controllermanager

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// options are flags of the official program, with the same meaning.
type options struct {
	kubeconfig      string
	controllers     []string
	accountsKeyFile string
	rootCAFile      string
	qps             float32
	burst           int
}

// fixedFlags are flags of the official program with the only value that this one supports.
var fixedFlags = []struct{ name, value string }{
	{"leader-elect", "false"},
	{"secure-port", "0"},
	{"use-service-account-credentials", "true"},
}

// NewCommand returns the command kube-controller-manager.
func NewCommand() *cobra.Command {
	var o options
	command := &cobra.Command{
		Use:          "kube-controller-manager",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := checkFixedFlags(command.Flags()); err != nil {
				return err
			}
			return run(genericapiserver.SetupSignalContext(), o)
		},
	}
	o.addTo(command.Flags())
	return command
}

func (o *options) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "the kubeconfig of the user system:kube-controller-manager")
	flags.StringSliceVar(&o.controllers, "controllers", nil, "the names of the controllers to run")
	flags.StringVar(&o.accountsKeyFile, "service-account-private-key-file", "", "the key that signs the tokens of ServiceAccounts")
	flags.StringVar(&o.rootCAFile, "root-ca-file", "", "the CA certificate of the API server")
	flags.Float32Var(&o.qps, "kube-api-qps", 20, "how many requests each second a controller may send to the API server")
	flags.IntVar(&o.burst, "kube-api-burst", 30, "how many requests a controller may send to the API server at once")
	for _, flag := range fixedFlags {
		flags.String(flag.name, flag.value, "must be "+flag.value)
	}
}

func checkFixedFlags(flags *pflag.FlagSet) error {
	for _, flag := range fixedFlags {
		if value := flags.Lookup(flag.name).Value.String(); value != flag.value {
			return fmt.Errorf("--%s=%s is not supported: set it to %s", flag.name, value, flag.value)
		}
	}
	return nil
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command kube is a Kubernetes control plane in one binary. Under the name etcd, kube-apiserver, kube-controller-manager or kubectl, it
// runs that program with its flags. Its kube-controller-manager has only the controllers that need no nodes.
package main

import (
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client-go's metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"

	"squirrel.dev/apikey-operator/hack/kube/controllermanager"
	"squirrel.dev/apikey-operator/hack/kube/multicall"
)

func main() {
	multicall.Main(map[string]func(){
		"etcd":                    func() { etcdmain.Main(os.Args) },
		"kube-apiserver":          func() { os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
		"kube-controller-manager": func() { os.Exit(cli.Run(controllermanager.NewCommand())) },
		"kubectl":                 func() { runKubectl(kubectl.NewDefaultKubectlCommand()) },
	})
}

func runKubectl(command *cobra.Command) {
	if err := cli.RunNoErrOutput(command); err != nil {
		kubectlutil.CheckErr(err)
	}
}

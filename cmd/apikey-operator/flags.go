// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the auth providers that a kubeconfig may name
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"squirrel.dev/apikey-operator/internal/kubeapi"
	"squirrel.dev/apikey-operator/internal/serving"
)

// podNamespaceFile holds the namespace of the pod.
const podNamespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// off disables a server if it is the server's address.
const off = "0"

// operationsFlags are the flags of probes, monitoring and the Kubernetes API.
type operationsFlags struct {
	metricsAddress string
	healthAddress  string
}

func (f *operationsFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.metricsAddress, "metrics-bind-address", off,
		"The address on which to serve /metrics over plain HTTP, for example :8080; 0 disables it.")
	flags.StringVar(&f.healthAddress, "health-probe-bind-address", ":8081",
		"The address on which to serve /healthz and /readyz over plain HTTP; 0 disables it.")
	flags.AddGoFlag(flag.Lookup(config.KubeconfigFlagName))
}

func (f *operationsFlags) validate() error {
	return cmp.Or(
		validateAddressOrOff("metrics-bind-address", f.metricsAddress),
		validateAddressOrOff("health-probe-bind-address", f.healthAddress),
	)
}

// addServers adds the servers of probes and monitoring.
func (f *operationsFlags) addServers(servers *serving.Process, ready func() error) {
	if f.metricsAddress != off {
		servers.AddOperationsServer("metrics", f.metricsAddress, nil, promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	}
	if f.healthAddress != off {
		servers.AddHealth(f.healthAddress, ready)
	}
}

// kubernetesConfig returns the configuration of clients of the Kubernetes API, from --kubeconfig, KUBECONFIG, the pod, or ~/.kube/config.
// The user agent identifies the process in the audit log of the API server.
func kubernetesConfig(process string) (*rest.Config, error) {
	kubernetes, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find the Kubernetes API by --kubeconfig, KUBECONFIG or the ServiceAccount of the pod: %w", err)
	}
	kubeapi.Harden(kubernetes, kubeapi.DefaultTimeouts(), kubeapi.NewMetrics(metrics.Registry), slog.Default())
	return rest.AddUserAgent(kubernetes, process), nil
}

func validateAddress(flag, address string) error {
	if _, err := portOf(address); err != nil {
		return fmt.Errorf("--%s=%q is not an address: use host:port or :port", flag, address)
	}
	return nil
}

func validateAddressOrOff(flag, address string) error {
	if address == off {
		return nil
	}
	if err := validateAddress(flag, address); err != nil {
		return fmt.Errorf("%w, or 0 to disable the server", err)
	}
	return nil
}

func validateNamespace(flag, namespace string) error {
	if namespace == "" {
		return nil
	}
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return fmt.Errorf("--%s=%q is not a namespace: %s", flag, namespace, problems[0])
	}
	return nil
}

// registerNamespaces adds the flag of the namespaces whose keys a process reads.
func registerNamespaces(flags *pflag.FlagSet, namespaces *[]string) {
	flags.StringSliceVar(namespaces, "namespaces", nil,
		"The namespaces whose keys to serve, separated by commas, which requires permissions in these namespaces alone; defaults to all.")
}

// validateNamespaces returns an error unless each of these is a namespace, and no two are equal.
func validateNamespaces(flag string, namespaces []string) error {
	for i, namespace := range namespaces {
		if namespace == "" {
			return fmt.Errorf("--%s=%q has an empty namespace: separate namespaces by one comma", flag, strings.Join(namespaces, ","))
		}
		if err := validateNamespace(flag, namespace); err != nil {
			return err
		}
		if slices.Contains(namespaces[:i], namespace) {
			return fmt.Errorf("--%s=%q has the namespace %s twice: remove one", flag, strings.Join(namespaces, ","), namespace)
		}
	}
	return nil
}

// podNamespace returns the namespace of the pod, the default of a flag.
func podNamespace(flag string) (string, error) {
	content, err := os.ReadFile(podNamespaceFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("--%s is required outside a cluster", flag)
	case err != nil:
		return "", fmt.Errorf("cannot read the namespace of the pod: set --%s: %w", flag, err)
	}
	return strings.TrimSpace(string(content)), nil
}

func portOf(address string) (int, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return int(number), err
}

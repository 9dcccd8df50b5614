// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	usagereport "squirrel.dev/apikey-operator/internal/usage"
)

const (
	systemNamespace  = "apikey-system"
	consoleNamespace = metav1.NamespaceDefault // as in config/overlays/console
	controllerLease  = "controller.keys.squirrel.dev"

	controllerAccount = "apikey-controller"
)

// The preferred ports, so that addresses stay the same between runs.
const (
	authenticatorPort = 9180 + iota
	authenticatorGRPCPort
	authenticatorHealthPort
	authenticatorUsagePort
	controllerHealthPort
	webhookPort
	consolePort
	consoleHealthPort
)

// stack is apikey-operator on a control plane. Each process has only the rights of its ServiceAccount.
type stack struct {
	workspace
	dir      string // of the data
	logDir   string
	anyPorts bool // instead of the preferred ones, which several stacks at the same time would use

	plane      *controlplane.ControlPlane
	processes  []*process.Process
	authURL    string
	authGRPC   string // host and port
	usageURL   string
	consoleURL string
	apiKeyFile string // of the console's bootstrap key
}

// start starts all processes, and returns after a key was issued and accepted. On any error, cancellation of ctx included, no process is
// left running.
func (s *stack) start(ctx context.Context) error {
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"Starting a Kubernetes control plane", s.startControlPlane},
		{"Installing the APIKey resource, roles and policies", s.installConfiguration},
		{"Starting the authenticator", s.startAuthenticator},
		{"Starting the controller", s.startController},
		{"Starting the console", s.startConsole},
		{"Issuing and checking a key", s.probe},
	}
	for _, step := range steps {
		s.printLine("%s ...", step.title)
		if err := step.run(ctx); err != nil {
			return errors.Join(err, s.stop())
		}
	}
	return nil
}

// stop stops all processes in the reverse order of their start.
func (s *stack) stop() error {
	var errs []error
	for len(s.processes) > 0 {
		errs = append(errs, s.stopLast())
	}
	if s.plane != nil {
		errs = append(errs, s.plane.Stop())
	}
	return errors.Join(errs...)
}

// stopLast stops the process that was started last.
func (s *stack) stopLast() error {
	last := len(s.processes) - 1
	stopped := s.processes[last]
	s.processes = s.processes[:last]
	return stopped.Stop()
}

// wait waits until ctx is done. It returns an error if a process ends before.
func (s *stack) wait(ctx context.Context) error {
	return process.WaitAny(ctx, append(s.plane.Processes(), s.processes...)...)
}

func (s *stack) startControlPlane(ctx context.Context) error {
	assets, err := controlplane.FindAssets()
	if err != nil {
		return err
	}
	s.plane, err = controlplane.Start(ctx, controlplane.Options{
		Dir:    s.dir,
		LogDir: s.logDir,
		Assets: assets,
		CRDDir: s.config("crd"),
	})
	if err == nil && !s.plane.HasControllerManager() {
		s.printLine("%s has no kube-controller-manager: Kubernetes will not delete the Secrets of deleted APIKeys, nor namespaces.", assets)
	}
	return err
}

func (s *stack) installConfiguration(ctx context.Context) error {
	for _, source := range [][]string{
		{"--filename", s.config("default", "namespace.yaml")},
		{"--kustomize", s.config("rbac")},
		{"--filename", s.config("components", "last-use", "rbac.yaml")},
		{"--kustomize", s.config("users")},
		{"--kustomize", s.config("policies")},
		{"--filename", s.config("overlays", "console", "rbac.yaml")},
	} {
		if _, err := s.plane.Kubectl(ctx, "", append([]string{"apply", "--server-side"}, source...)...); err != nil {
			return err
		}
	}
	return nil
}

func (s *stack) startController(ctx context.Context) error {
	if err := s.removeLease(ctx); err != nil {
		return err
	}
	usageToken, err := s.writeUsageToken(ctx)
	if err != nil {
		return err
	}
	return s.startOnFreePorts(func(ports []int) error {
		health, webhook := address(ports[0]), address(ports[1])
		certDir := filepath.Join(s.dir, "webhook")
		if _, err := s.plane.RegisterWebhooks(ctx, s.config("webhook", "validating.yaml"), ports[1], certDir); err != nil {
			return err
		}
		return s.startProcess(ctx, systemNamespace, "controller", health,
			"--system-namespace="+systemNamespace,
			"--webhook-listen-address="+webhook,
			"--webhook-cert-dir="+certDir,
			"--usage-endpoints="+s.usageURL,
			"--usage-token-file="+usageToken,
		)
	}, controllerHealthPort, webhookPort)
}

// writeUsageToken writes the token with which the controller reads the last uses of tokens from the authenticator, and returns its file.
func (s *stack) writeUsageToken(ctx context.Context) (string, error) {
	token, err := s.plane.ServiceAccountToken(ctx, systemNamespace, controllerAccount, usagereport.Audience)
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.dir, "usage.token")
	return file, os.WriteFile(file, []byte(token), 0o600)
}

// removeLease deletes the lease of a controller that was killed, so that the next controller does not wait for its expiry. The old
// controller cannot write even if it still runs, because the control plane has new certificates after each start.
func (s *stack) removeLease(ctx context.Context) error {
	_, err := s.plane.Kubectl(ctx, "", "delete", "lease", controllerLease, "--namespace", systemNamespace, "--ignore-not-found")
	return err
}

func (s *stack) startAuthenticator(ctx context.Context) error {
	return s.startOnFreePorts(func(ports []int) error {
		listen, health, usage := address(ports[0]), address(ports[2]), address(ports[3])
		s.authURL, s.authGRPC, s.usageURL = "http://"+listen, address(ports[1]), "http://"+usage
		return s.startProcess(ctx, systemNamespace, "authenticator", health,
			"--listen-address="+listen,
			"--grpc-listen-address="+s.authGRPC,
			"--plaintext",
			"--shutdown-delay=0s",
			"--usage-listen-address="+usage,
			"--usage-reader="+systemNamespace+"/"+controllerAccount,
		)
	}, authenticatorPort, authenticatorGRPCPort, authenticatorHealthPort, authenticatorUsagePort)
}

// startConsole starts the console with a bootstrap key that is accepted.
func (s *stack) startConsole(ctx context.Context) error {
	s.apiKeyFile = filepath.Join(s.dir, "console", ".api_key")
	if err := s.serveConsole(ctx); err != nil {
		return err
	}
	accepted, err := s.bootstrapKeyAccepted(ctx)
	if err != nil || accepted {
		return err
	}
	s.printLine("The bootstrap key of %s has ended: creating another one ...", relative(s.apiKeyFile))
	if err := errors.Join(s.stopLast(), os.Remove(s.apiKeyFile)); err != nil {
		return err
	}
	return s.serveConsole(ctx)
}

func (s *stack) serveConsole(ctx context.Context) error {
	return s.startOnFreePorts(func(ports []int) error {
		listen, health := address(ports[0]), address(ports[1])
		s.consoleURL = "http://" + listen
		return s.startProcess(ctx, consoleNamespace, "console", health,
			"--listen-address="+listen,
			"--plaintext",
			"--shutdown-delay=0s",
			"--namespace="+consoleNamespace,
			"--api-key-file="+s.apiKeyFile,
		)
	}, consolePort, consoleHealthPort)
}

// bootstrapKeyAccepted reports whether the console accepts the key of its file. The APIKey can have ended in an earlier run.
func (s *stack) bootstrapKeyAccepted(ctx context.Context) (bool, error) {
	key, err := os.ReadFile(s.apiKeyFile)
	if err != nil {
		return false, err
	}
	count := apiRequest{method: http.MethodGet, url: s.consoleURL + "/api/v1/api-keys/count", key: strings.TrimSpace(string(key))}
	response, err := count.send(ctx)
	return err == nil && response.StatusCode != http.StatusUnauthorized, err
}

// portAttempts limits how often a server is started, because another program took its port.
const portAttempts = 5

// startOnFreePorts starts a server on free ports, the preferred ones if possible. Another program may take a port before the server binds
// it. The server is then started on other ports.
func (s *stack) startOnFreePorts(start func(ports []int) error, preferred ...int) error {
	for attempt := 1; ; attempt++ {
		ports, err := s.ports(preferred...)
		if err != nil {
			return err
		}
		err = start(ports)
		if err == nil || attempt == portAttempts || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			return err
		}
		s.printLine("Another program took one of the ports %v: choosing others ...", ports)
	}
}

// ports returns free ports, the preferred ones if possible.
func (s *stack) ports(preferred ...int) ([]int, error) {
	var ports []int
	for _, port := range preferred {
		if s.anyPorts {
			port = 0
		}
		free, err := controlplane.FreePort(port)
		if err != nil {
			return nil, err
		}
		ports = append(ports, free)
	}
	return ports, nil
}

// environments holds the environment variables of the Deployments in config.
var environments = map[string][]string{
	"authenticator": {"GOGC=200"},
	"controller":    {"GOGC=25"},
}

// startProcess starts a subcommand of apikey-operator with the rights of its ServiceAccount in a namespace. It serves health checks at
// health.
func (s *stack) startProcess(ctx context.Context, namespace, subcommand, health string, flags ...string) error {
	program := filepath.Join(s.root, "bin", "apikey-operator")
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("run `make build` first: %w", err)
	}
	account, err := s.plane.ServiceAccountConfig(ctx, namespace, "apikey-"+subcommand)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(s.dir, subcommand+".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, account, namespace); err != nil {
		return err
	}
	p, err := process.Start(ctx, process.Command{
		Path: program,
		Args: slices.Concat([]string{
			subcommand, "--kubeconfig=" + kubeconfig, "--log-format=text", "--health-probe-bind-address=" + health,
		}, flags),
		Env:   environments[subcommand],
		Log:   filepath.Join(s.logDir, subcommand+".log"),
		Ready: process.HTTPReady("http://" + health + "/readyz"),
	})
	if err != nil {
		return err
	}
	s.processes = append(s.processes, p)
	return nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

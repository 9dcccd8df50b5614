// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

const (
	systemNamespace  = "apikey-system"
	consoleNamespace = metav1.NamespaceDefault // as config/overlays/console has it
	controllerLease  = "controller.keys.squirrel.dev"
)

// The ports that a run takes if they are free, so that addresses stay the same from run to run.
const (
	authenticatorPort = 9180 + iota
	authenticatorGRPCPort
	authenticatorHealthPort
	controllerHealthPort
	webhookPort
	consolePort
	consoleHealthPort
)

// stack is apikey-operator on a control plane of its own. Each of its processes has only the rights of its ServiceAccount.
type stack struct {
	place
	dir      string // of what the control plane keeps
	logDir   string
	anyPorts bool // rather than the preferred ones, which others that start at the same time would find free too

	plane      *controlplane.ControlPlane
	processes  []*process.Process
	authURL    string
	authGRPC   string // host and port
	consoleURL string
	apiKeyFile string // of the console's bootstrap key
}

// start starts everything and returns when it is ready: a key is issued and accepted. On any error, cancellation of ctx included, nothing
// is left running.
func (s *stack) start(ctx context.Context) error {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"Starting a Kubernetes control plane", s.startControlPlane},
		{"Installing the APIKey resource, roles and policies", s.installConfiguration},
		{"Starting the controller", s.startController},
		{"Starting the authenticator", s.startAuthenticator},
		{"Starting the console", s.startConsole},
		{"Issuing a key, to see that it is accepted", s.probe},
	}
	for _, step := range steps {
		s.say("%s ...", step.what)
		if err := step.do(ctx); err != nil {
			return errors.Join(err, s.stop())
		}
	}
	return nil
}

// stop ends what was started last first.
func (s *stack) stop() error {
	var errs []error
	for len(s.processes) > 0 {
		last := len(s.processes) - 1
		errs = append(errs, s.processes[last].Stop())
		s.processes = s.processes[:last]
	}
	if s.plane != nil {
		errs = append(errs, s.plane.Stop())
	}
	return errors.Join(errs...)
}

// wait returns nil when ctx is done, and an error when a process ends by itself before.
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
		s.say("%s has no kube-controller-manager: without it, deleting an APIKey leaves its Secret, and a deleted namespace stays.", assets)
	}
	return err
}

func (s *stack) installConfiguration(ctx context.Context) error {
	for _, from := range [][]string{
		{"--filename", s.config("default", "namespace.yaml")},
		{"--kustomize", s.config("rbac")},
		{"--kustomize", s.config("policies")},
		{"--filename", s.config("overlays", "console", "rbac.yaml")},
	} {
		if _, err := s.plane.Kubectl(ctx, "", append([]string{"apply", "--server-side"}, from...)...); err != nil {
			return err
		}
	}
	return nil
}

func (s *stack) startController(ctx context.Context) error {
	health, err := s.port(controllerHealthPort)
	if err != nil {
		return err
	}
	webhook, err := s.port(webhookPort)
	if err != nil {
		return err
	}
	if err := s.removeLease(ctx); err != nil {
		return err
	}
	certDir := filepath.Join(s.dir, "webhook")
	if _, err := s.plane.RegisterWebhooks(ctx, s.config("webhook", "validating.yaml"), webhook, certDir); err != nil {
		return err
	}
	return s.startProcess(ctx, systemNamespace, "controller", "http://"+address(health)+"/readyz",
		"--health-probe-bind-address="+address(health),
		"--system-namespace="+systemNamespace,
		"--webhook-listen-address="+address(webhook),
		"--webhook-cert-dir="+certDir,
	)
}

// removeLease removes the lease of the controller of a run that was killed, for whose end the next controller would wait. That controller
// has ended, or else cannot write any more: the control plane has new certificates at each start.
func (s *stack) removeLease(ctx context.Context) error {
	_, err := s.plane.Kubectl(ctx, "", "delete", "lease", controllerLease, "--namespace", systemNamespace, "--ignore-not-found")
	return err
}

func (s *stack) startAuthenticator(ctx context.Context) error {
	listen, err := s.port(authenticatorPort)
	if err != nil {
		return err
	}
	listenGRPC, err := s.port(authenticatorGRPCPort)
	if err != nil {
		return err
	}
	health, err := s.port(authenticatorHealthPort)
	if err != nil {
		return err
	}
	s.authURL, s.authGRPC = "http://"+address(listen), address(listenGRPC)
	return s.startProcess(ctx, systemNamespace, "authenticator", "http://"+address(health)+"/readyz",
		"--health-probe-bind-address="+address(health),
		"--listen-address="+address(listen),
		"--grpc-listen-address="+s.authGRPC,
		"--plaintext",
		"--shutdown-delay=0s",
	)
}

func (s *stack) startConsole(ctx context.Context) error {
	listen, err := s.port(consolePort)
	if err != nil {
		return err
	}
	health, err := s.port(consoleHealthPort)
	if err != nil {
		return err
	}
	s.consoleURL, s.apiKeyFile = "http://"+address(listen), filepath.Join(s.dir, "console", ".api_key")
	return s.startProcess(ctx, consoleNamespace, "console", "http://"+address(health)+"/readyz",
		"--health-probe-bind-address="+address(health),
		"--listen-address="+address(listen),
		"--plaintext",
		"--shutdown-delay=0s",
		"--namespace="+consoleNamespace,
		"--api-key-file="+s.apiKeyFile,
	)
}

func (s *stack) port(preferred int) (int, error) {
	if s.anyPorts {
		preferred = 0
	}
	return controlplane.FreePort(preferred)
}

// environments holds the environment variables of the Deployments in config.
var environments = map[string][]string{
	"authenticator": {"GOGC=200"},
	"controller":    {"GOGC=25"},
}

// startProcess starts a subcommand of apikey-operator with the rights of its ServiceAccount, which is in this namespace.
func (s *stack) startProcess(ctx context.Context, namespace, subcommand, readyURL string, flags ...string) error {
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
		Path:  program,
		Args:  append([]string{subcommand, "--kubeconfig=" + kubeconfig, "--log-format=text"}, flags...),
		Env:   environments[subcommand],
		Log:   filepath.Join(s.logDir, subcommand+".log"),
		Ready: process.HTTPReady(readyURL),
	})
	if err != nil {
		return err
	}
	s.processes = append(s.processes, p)
	return nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

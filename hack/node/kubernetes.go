// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

// kubeProxyHealth is the address of the health check of kube-proxy.
var kubeProxyHealth = nodeAddress.String() + ":10256"

// startNode starts kubelet and kube-proxy in the namespaces, and the scheduler on this machine.
func (n *node) startNode(ctx context.Context) error {
	for _, start := range []func(context.Context) error{n.startScheduler, n.startKubelet, n.startKubeProxy} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) startScheduler(ctx context.Context) error {
	kubeconfig, err := n.writeKubeconfig("kube-scheduler", "system:kube-scheduler")
	if err != nil {
		return err
	}
	return n.startProcess(ctx, process.Command{
		Path: n.program("kube-scheduler"),
		Args: []string{"--kubeconfig=" + kubeconfig, "--leader-elect=false", "--secure-port=0"},
		Log:  n.logFile("kube-scheduler"),
	})
}

func (n *node) startKubelet(ctx context.Context) error {
	kubeconfig, err := n.writeKubeconfig("kubelet", "system:node:"+hostName, "system:nodes")
	if err != nil {
		return err
	}
	return n.startInside(ctx, process.Command{
		Name: "kubelet",
		Args: []string{
			n.program("kubelet"),
			"--config=" + n.config("kubelet.yaml"),
			"--kubeconfig=" + kubeconfig,
			"--node-ip=" + nodeAddress.String(),
		},
		Ready: n.nodeReady,
	})
}

func (n *node) startKubeProxy(ctx context.Context) error {
	if _, err := n.writeKubeconfig("kube-proxy", "system:kube-proxy"); err != nil {
		return err
	}
	return n.startInside(ctx, process.Command{
		Name:  "kube-proxy",
		Args:  []string{n.program("kube-proxy"), "--config=" + n.config("kube-proxy.yaml")},
		Ready: process.HTTPReady("http://" + kubeProxyHealth + "/healthz"),
	})
}

func (n *node) nodeReady(ctx context.Context) error {
	node, err := n.clients.CoreV1().Nodes().Get(ctx, hostName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("the conditions of the node are %v", node.Status.Conditions)
}

// startDNS installs CoreDNS, and returns when it is available.
func (n *node) startDNS(ctx context.Context) error {
	if _, err := n.plane.Kubectl(ctx, "", "apply", "--server-side", "--filename", n.config("dns.yaml")); err != nil {
		return err
	}
	_, err := n.plane.Kubectl(ctx, "", "rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=60s")
	return err
}

// startInside starts a program in the namespaces. The first one of command.Args is its path.
func (n *node) startInside(ctx context.Context, command process.Command) error {
	line := n.inside.enter(command.Args...)
	command.Path, command.Args = line[0], line[1:]
	command.Log = n.logFile(command.Name)
	return n.startProcess(ctx, command)
}

// writeKubeconfig writes the kubeconfig of a program with the credentials of a user, and returns its path.
func (n *node) writeKubeconfig(name, user string, groups ...string) (string, error) {
	config, err := n.plane.UserConfig(user, groups...)
	if err != nil {
		return "", err
	}
	path := n.config(name + ".kubeconfig")
	return path, controlplane.WriteKubeconfig(path, config, metav1.NamespaceSystem)
}

func (n *node) program(name string) string { return filepath.Join(n.programs, name) }

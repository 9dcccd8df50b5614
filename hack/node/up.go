// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

// node is a cluster of one node.
type node struct {
	paths
	first     *process.Process // of the namespaces
	inside    namespaces
	plane     *controlplane.ControlPlane
	clients   kubernetes.Interface
	processes []*process.Process
}

// up runs a cluster until ctx is done, or until one of its processes ends.
func up(ctx context.Context, paths paths) (err error) {
	if err := checkMachine(); err != nil {
		return err
	}
	if err := checkFreeSpace(paths.programs, minFreeSpace); err != nil { // the state is written there
		return err
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	n := &node{paths: paths}
	defer func() {
		fmt.Println("\nStopping ...")
		err = errors.Join(err, n.down())
	}()
	started := time.Now()
	if err := n.start(ctx); err != nil {
		return fmt.Errorf("%w\nThe logs are in %s", err, n.logs)
	}
	if err := controlplane.WriteKubeconfig(n.kubeconfig, n.plane.AdminConfig(), metav1.NamespaceDefault); err != nil {
		return err
	}
	fmt.Printf(instructions, time.Since(started).Seconds(), n.kubeconfig, n.plane.Binary("kubectl"), n.logs)
	fmt.Println("ready")
	return process.WaitAny(ctx, slices.Concat([]*process.Process{n.first}, n.plane.Processes(), n.processes)...)
}

const instructions = `
A Kubernetes cluster of one node is running, after %.0f seconds. In another terminal:

  export KUBECONFIG=%s
  %s get pods --all-namespaces

To load images from archives: bin/node/node load FILE.tar. The logs are in %s. Ctrl-C stops the cluster and deletes its data.
`

func (n *node) start(ctx context.Context) error {
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"Checking the files of the node", n.checkFiles},
		{"Cleaning up after a killed node", cleanUp},
		{"Creating directories and control groups", n.createDirectories},
		{"Creating namespaces", n.startNamespaces},
		{"Connecting their network", n.connect},
		{"Starting a Kubernetes control plane", n.startControlPlane},
		{"Writing the configuration of the node", n.writeConfiguration},
		{"Starting the container runtime", n.startContainerd},
		{"Loading the images of the system pods", func(ctx context.Context) error { return n.inside.load(ctx, n.systemImages()) }},
		{"Starting the node", n.startNode},
		{"Starting the DNS of the cluster", n.startDNS},
	}
	for _, step := range steps {
		fmt.Printf("%s ...\n", step.title)
		if err := step.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// down stops the cluster and removes all of it except the logs.
func (n *node) down() error {
	if n.first != nil {
		n.first.Kill() // with all processes in its namespaces
	}
	for _, p := range n.processes {
		p.Kill()
	}
	var err error
	if n.plane != nil {
		err = n.plane.Stop()
	}
	return errors.Join(err, cleanUp(context.Background()), os.RemoveAll(n.state), os.RemoveAll(n.kubeconfig))
}

func (n *node) checkFiles(context.Context) error {
	programs := []string{
		n.program("kubelet"), n.program("kube-proxy"), n.program("kube-scheduler"),
		filepath.Join(n.debian, "usr", "bin", "containerd"),
	}
	for _, file := range append(programs, n.systemImages()...) {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w: run `make node`, which builds it", err)
		}
	}
	return nil
}

func (n *node) createDirectories(context.Context) error {
	for _, old := range []string{n.state, n.kubeconfig, n.logs} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	return errors.Join(os.MkdirAll(n.state, 0o755), os.MkdirAll(n.logs, 0o755), createCgroups())
}

func (n *node) startNamespaces(ctx context.Context) (err error) {
	if n.first, err = startFirstProcess(ctx, n.paths); err != nil {
		return err
	}
	n.inside = namespaces{pid: n.first.PID()}
	return n.inside.record(n.paths)
}

func (n *node) connect(ctx context.Context) error { return connect(ctx, n.inside) }

func (n *node) startControlPlane(ctx context.Context) (err error) {
	n.plane, err = controlplane.Start(ctx, controlplane.Options{
		Dir:    filepath.Join(n.state, "controlplane"),
		LogDir: n.logs,
		Assets: n.assets,
		Cluster: &controlplane.Cluster{
			Address: hostAddress, Services: serviceRange, ControllerManager: n.program("kube-controller-manager"),
		},
	})
	if err != nil {
		return err
	}
	n.clients, err = kubernetes.NewForConfig(n.plane.AdminConfig())
	return err
}

// startProcess starts a process of the cluster.
func (n *node) startProcess(ctx context.Context, command process.Command) error {
	p, err := process.Start(ctx, command)
	if err == nil {
		n.processes = append(n.processes, p)
	}
	return err
}

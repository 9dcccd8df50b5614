// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command node runs a Kubernetes cluster of one node, with real pods, in Linux namespaces of its own: network, mounts, processes, IPC
// and host name. What the node does there (packet filters, bridges, mounts, containers) ends with the first process of these namespaces,
// and that one ends with this program, however it ends.
//
// The control plane runs beside them, on this machine's end of the one link into the network of the node:
//
//	this machine, 10.98.0.1                  |  the namespaces, 10.98.0.2
//	etcd, kube-apiserver, kube-scheduler,  --|--  containerd, kubelet, kube-proxy
//	kube-controller-manager                  |    pods 10.245.0.0/24, Services 10.97.0.0/16
//
// Routes lead this machine's own programs to pods and Services. Pods reach nothing outside.
package main

import (
	"context"
	"errors"
	"path/filepath"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

const usage = `usage: node check            say whether this machine can run a node
       node up               run a cluster of one node until Ctrl-C
       node load FILE.tar... give the running node images, each from an archive as "docker save" writes it`

func main() { process.Main(command) }

func command(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "check":
		return checkMachine()
	case len(args) == 4 && args[0] == firstProcessCommand:
		return runFirstProcess(args[1], args[2], args[3])
	}
	place, err := findPlace()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "up":
		return up(ctx, place)
	case len(args) > 1 && args[0] == "load":
		return load(ctx, place, args[1:])
	default:
		return errors.New(usage)
	}
}

// place is where everything is that this program uses and writes.
type place struct {
	assets     string // the directory of the control plane's binaries
	programs   string // the directory of the node's binaries
	debian     string // the directory that Debian packages are extracted in
	images     string // the directory of the images that every node needs
	state      string // the directory of what a node keeps; it is gone when the node is
	kubeconfig string // a file that is there while the node is ready
	logs       string // the directory of the logs of the last node
}

func findPlace() (place, error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return place{}, err
	}
	assets, err := controlplane.FindAssets()
	bin := filepath.Join(root, "bin")
	return place{
		assets:     assets,
		programs:   filepath.Join(bin, "node"),
		debian:     filepath.Join(bin, "debian"),
		images:     filepath.Join(bin, "images"),
		state:      filepath.Join(bin, "node", "state"),
		kubeconfig: filepath.Join(bin, "node", "kubeconfig"),
		logs:       filepath.Join(bin, "node", "log"),
	}, err
}

func (p place) logFile(process string) string { return filepath.Join(p.logs, process+".log") }

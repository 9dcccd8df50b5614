// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command node runs a Kubernetes cluster of one node, with real pods, in separate Linux namespaces: network, mount, PID, IPC and UTS. The
// packet filters, bridges, mounts and containers of the node exist only in these namespaces. They end with their first process, which ends
// with this program, even if that is killed.
//
// The control plane runs outside of the namespaces, at this machine's end of the link into the network of the node:
//
//	this machine, 10.98.0.1                  |  the namespaces, 10.98.0.2
//	etcd, kube-apiserver, kube-scheduler,  --|--  containerd, kubelet, kube-proxy
//	kube-controller-manager                  |    pods 10.245.0.0/24, Services 10.97.0.0/16
//
// Programs of this machine can reach pods and Services by routes. Pods cannot reach other networks. The node requires Linux.
package main

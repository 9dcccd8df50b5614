// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane runs a Kubernetes control plane on the loopback address: etcd, kube-apiserver and, if the binary exists,
// kube-controller-manager. `make run`, `make demo` and the tests use it. With nodes that join it, it is the control plane of a cluster.
//
// In contrast to envtest, it runs kube-controller-manager, keeps its data, can stop and start the API server at the same address, and
// writes logs. Its processes end with this program, even if that is killed.
package controlplane

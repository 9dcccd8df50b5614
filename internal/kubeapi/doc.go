// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kubeapi hardens the clients of the Kubernetes API against failures that a list and watch does not detect:
//
//   - a connection or a watch that is silent but open,
//   - a response that stops halfway,
//   - an etcd that was restored from an older backup.
//
// It works in the transport, below every Reflector of a process.
//
// It also compares the local clock with that of the API server.
package kubeapi

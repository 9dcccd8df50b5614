// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faults checks the invariants of the compiled program while its dependencies fail: the API server, etcd, the network, and
// other processes.
package faults

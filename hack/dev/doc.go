// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command dev runs apikey-operator on an embedded Kubernetes control plane, for `make run` and `make demo`.
package main

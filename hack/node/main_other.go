// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

// Command node runs a Kubernetes cluster of one node. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "a node of its own needs Linux. Give the tests another cluster: make e2e KUBECONFIG=FILE IMAGE=NAME")
	os.Exit(1)
}

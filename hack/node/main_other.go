// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "a node requires Linux: run the tests on another cluster with make e2e KUBECONFIG=FILE IMAGE=NAME")
	os.Exit(1)
}

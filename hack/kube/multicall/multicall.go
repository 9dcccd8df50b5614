// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package multicall is several programs in one binary: it is the program that its name says.
package multicall

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Main runs the one of these programs whose name this binary was called by.
func Main(programs map[string]func()) {
	name := filepath.Base(os.Args[0])
	program, ok := programs[name]
	if !ok {
		names := strings.Join(slices.Sorted(maps.Keys(programs)), ", ")
		fmt.Fprintf(os.Stderr, "%s: link or rename this binary to one of %s, and run it under that name\n", name, names)
		os.Exit(2)
	}
	program()
}

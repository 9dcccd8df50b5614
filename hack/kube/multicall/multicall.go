// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package multicall runs one of several programs in a binary, by the name of the binary.
package multicall

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Main runs the program with the name of this binary.
func Main(programs map[string]func()) {
	name := filepath.Base(os.Args[0])
	program, ok := programs[name]
	if !ok {
		names := strings.Join(slices.Sorted(maps.Keys(programs)), ", ")
		fmt.Fprintf(os.Stderr, "%s is not the name of a program: link or rename this binary to one of %s\n", name, names)
		os.Exit(2)
	}
	program()
}

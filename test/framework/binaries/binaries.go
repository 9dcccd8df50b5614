// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package binaries runs programs of others in tests: those that `make` gets, in bin.
package binaries

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

// Path returns the path of something in bin.
func Path(t testing.TB, elements ...string) string {
	t.Helper()
	root, err := controlplane.FindRepository()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(append([]string{root, "bin"}, elements...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: the target of `make` that runs this test gets it", err)
	}
	return path
}

// LibrariesOfDebian returns the environment variable with which programs in bin/debian find their libraries.
func LibrariesOfDebian(t testing.TB) string {
	t.Helper()
	var dirs []string
	for _, pattern := range []string{"lib/*-linux-gnu", "usr/lib/*-linux-gnu"} {
		found, err := filepath.Glob(filepath.Join(Path(t, "debian"), pattern))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	return "LD_LIBRARY_PATH=" + strings.Join(dirs, ":")
}

// Start starts a program, and returns once it is ready. It is killed when the test ends; if that failed, its log is shown.
func Start(t testing.TB, command process.Command) {
	t.Helper()
	started, err := process.Start(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		started.Kill()
		if t.Failed() {
			t.Logf("%s: %v", started.Name(), started.Err())
		}
	})
}

// FreeAddress returns a loopback address for a server that does not tell which port it got. Nothing holds it until that server listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := controlplane.FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

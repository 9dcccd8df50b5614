// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package binaries runs third-party programs that `make` has installed in bin, such as nginx and Prometheus.
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
	"squirrel.dev/apikey-operator/test/framework"
)

// Path returns the path of a file or directory in bin. It ends the test if that does not exist.
func Path(t testing.TB, elements ...string) string {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	path := filepath.Join(append([]string{root, "bin"}, elements...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run this test with its `make` target, which installs the file", err)
	}
	return path
}

// DebianLibraryPath returns the LD_LIBRARY_PATH variable, as "NAME=value", for programs in bin/debian.
func DebianLibraryPath(t testing.TB) string {
	t.Helper()
	var dirs []string
	for _, pattern := range []string{"lib/*-linux-gnu", "usr/lib/*-linux-gnu"} {
		found, err := filepath.Glob(filepath.Join(Path(t, "debian"), pattern))
		framework.Must(t, err)
		dirs = append(dirs, found...)
	}
	return "LD_LIBRARY_PATH=" + strings.Join(dirs, ":")
}

// Start starts a program and returns when it is ready. The program is killed when the test ends. A failed test logs its output.
func Start(t testing.TB, command process.Command) *process.Process {
	t.Helper()
	started, err := process.Start(t.Context(), command)
	framework.Must(t, err)
	t.Cleanup(func() {
		started.Kill()
		if t.Failed() {
			t.Logf("%s: %v", started.Name(), started.Err())
		}
	})
	return started
}

// FreeAddress returns a loopback address with a free port, for a server that does not report its port. The port is not reserved: start the
// server at once.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := controlplane.FreePort(0)
	framework.Must(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

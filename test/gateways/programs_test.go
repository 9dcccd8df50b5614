// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/pages"
)

// bin returns the path of something that `make test-gateways` gets.
func bin(t testing.TB, elements ...string) string {
	t.Helper()
	root, err := controlplane.FindRepository()
	must(t, err)
	path := filepath.Join(append([]string{root, "bin"}, elements...)...)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("there is no %s: `make test-gateways` gets it", path)
	}
	return path
}

// librariesOfDebian returns the environment variable with which programs in bin/debian find their libraries.
func librariesOfDebian(t testing.TB) string {
	t.Helper()
	var dirs []string
	for _, pattern := range []string{"lib/*-linux-gnu", "usr/lib/*-linux-gnu"} {
		found, err := filepath.Glob(filepath.Join(bin(t, "debian"), pattern))
		must(t, err)
		dirs = append(dirs, found...)
	}
	return "LD_LIBRARY_PATH=" + strings.Join(dirs, ":")
}

// startGateway starts a program that is to listen at an address, and returns once it does. It is stopped when the test ends.
func startGateway(t testing.TB, address string, command process.Command) {
	t.Helper()
	command.Log = filepath.Join(t.TempDir(), "log")
	command.Ready = func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			connection.Close()
		}
		return err
	}
	gateway, err := process.Start(t.Context(), command)
	must(t, err)
	t.Cleanup(func() {
		gateway.Kill()
		if t.Failed() {
			t.Logf("%s: %v", gateway.Name(), gateway.Err())
		}
	})
}

// freeAddress returns an address for a server. Nothing holds it until that server listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	port, err := controlplane.FreePort(0)
	must(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// configure writes a configuration to a file in which it stands for a test, as [pages.ForTest] says.
func configure(t testing.TB, file, configuration string, replacements map[string]string) {
	t.Helper()
	must(t, os.WriteFile(file, []byte(pages.ForTest(t, configuration, replacements)), 0o600))
}

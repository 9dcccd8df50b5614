// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"cmp"
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// startGateway starts a program, and returns when it listens at the address. It is stopped when the test ends.
func startGateway(t testing.TB, address string, command process.Command) {
	t.Helper()
	command.Log = cmp.Or(command.Log, filepath.Join(t.TempDir(), "log"))
	command.Ready = func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			connection.Close()
		}
		return err
	}
	binaries.Start(t, command)
}

// configure writes a configuration to a file, with the replacements of [docsnippets.Replace].
func configure(t testing.TB, file, configuration string, replacements map[string]string) {
	t.Helper()
	framework.Must(t, os.WriteFile(file, []byte(docsnippets.Replace(t, configuration, replacements)), 0o600))
}

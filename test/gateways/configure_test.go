// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"os"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// configure writes a configuration to a file, with the replacements of [docsnippets.Replace].
func configure(t testing.TB, file, configuration string, replacements map[string]string) {
	t.Helper()
	framework.Must(t, os.WriteFile(file, []byte(docsnippets.Replace(t, configuration, replacements)), 0o600))
}

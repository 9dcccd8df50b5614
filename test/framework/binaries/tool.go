// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package binaries

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Helm runs Helm, and returns its standard output. An error includes the standard error.
func Helm(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return Tool(t, "helm", args...)
}

// Tool runs a program of bin/tools without the settings of the user, and returns its standard output. An error includes the standard error.
func Tool(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), Path(t, "tools", name), args...)
	command.Env = append(os.Environ(), "HOME="+t.TempDir())
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(output), nil
}

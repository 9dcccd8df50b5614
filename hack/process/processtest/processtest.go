// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package processtest tells tests what a program that they started has left running.
package processtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// WithTemporary returns the command lines of the running processes that have this TMPDIR, as those have inherited it that a program
// started, and those that they did.
func WithTemporary(t testing.TB, tmp string) []string {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(environments) == 0 {
		t.Fatal("this test looks for processes in /proc, as Linux has it")
	}
	var found []string
	for _, path := range environments {
		environment, _ := os.ReadFile(path) // it may have ended since
		if strings.Contains("\x00"+string(environment), "\x00TMPDIR="+tmp+"\x00") {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

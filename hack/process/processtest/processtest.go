// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package processtest finds the processes that a program under test has left running.
package processtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// WithTMPDIR returns the command lines of the running processes with a TMPDIR, which the descendants of a program inherit.
func WithTMPDIR(t testing.TB, tmp string) []string {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(environments) == 0 {
		t.Fatal("this test requires the /proc of Linux")
	}
	var found []string
	for _, path := range environments {
		environment, _ := os.ReadFile(path) // fails if the process has ended
		if strings.Contains("\x00"+string(environment), "\x00TMPDIR="+tmp+"\x00") {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

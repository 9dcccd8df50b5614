// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

func TestConsole_KeyFileDefaultsToTheEnvironment(t *testing.T) {
	defaultFile := func() string { return newConsoleCommand().Flags().Lookup("api-key-file").DefValue }
	const variable = "APIKEY_OPERATOR_API_KEY_FILE"
	t.Setenv(variable, "") // restores the variable after the test
	if err := os.Unsetenv(variable); err != nil {
		t.Fatal(err)
	}
	if got := defaultFile(); got != "data/.api_key" {
		t.Errorf("without the variable, the default is %q", got)
	}
	for _, file := range []string{"/run/secrets/api_key", ""} {
		t.Setenv(variable, file)
		if got := defaultFile(); got != file {
			t.Errorf("the default is %q, want %q", got, file)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

func TestDeactivate_NamesTheToolThatManagesTheKey(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner", func(key *v1alpha1.APIKey) {
		key.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "keys"}
	})
	terminal.types("deactivate", "partner")
	terminal.assertGolden()
}

func TestDeactivate_PrintsTheLastUse(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner")
	terminal.issue("partner", record(5*day, 0), record(10*day, 3*time.Hour))
	terminal.types("deactivate", "partner")
	terminal.assertGolden()
}

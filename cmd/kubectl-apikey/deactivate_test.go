// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

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

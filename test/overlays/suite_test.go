// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build overlays

package overlays_test

import (
	"testing"

	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	configDir       = "../../config"
	systemNamespace = "apikey-system"
)

func TestMain(m *testing.M) { testenv.Main(m) }

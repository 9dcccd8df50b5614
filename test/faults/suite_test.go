// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"testing"

	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// startAuthenticator runs an authenticator over plain HTTP.
func startAuthenticator(t testing.TB, config *rest.Config, args ...string) *operator.Process {
	t.Helper()
	return operator.StartAuthenticator(t, config, append([]string{"--plaintext"}, args...)...)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build load

package load_test

import (
	"testing"
	"time"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// start starts a process, and returns when it is ready.
func start(t testing.TB, env *testenv.Env, args ...string) *operator.Built {
	t.Helper()
	return operator.StartBuilt(t, env.ControlPlane.Kubeconfig(), process.Command{Args: args})
}

func startController(t testing.TB, env *testenv.Env) *operator.Built {
	t.Helper()
	return start(t, env, "controller", "--webhook=false", "--leader-elect=false")
}

// quantile returns a quantile of times that are sorted.
func quantile(times []time.Duration, q float64) time.Duration {
	return times[int(q*float64(len(times)-1))].Round(time.Millisecond)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// TestInvariant5_KeysEndWithoutTheController ends keys while no controller runs. An answer counts as late from some round trips after the
// command that ended the key.
func TestInvariant5_KeysEndWithoutTheController(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	tokens := f.issueOnce("kept", "deactivated", "deleted", "expiring")
	gateway := startAuthenticator(t, f.Env.Config).Address("authenticator")
	for _, issued := range tokens {
		f.awaitAnswer(gateway, issued, http.StatusOK)
	}
	vigil := f.keepWatch(gateway, map[string]int{tokens["kept"]: http.StatusOK})

	f.kubectl("patch", "apikey", "deactivated", "--type=merge", `--patch={"spec":{"active":false}}`)
	f.awaitAnswer(gateway, tokens["deactivated"], http.StatusUnauthorized)
	if active := f.kubectl("get", "apikey", "deactivated", `--output=jsonpath={.status.conditions[?(@.type=="Active")].status}`); active != "True" {
		t.Errorf("somebody wrote the status of the deactivated key: Active is %q", active)
	}

	f.kubectl("delete", "apikey", "deleted")
	f.awaitAnswer(gateway, tokens["deleted"], http.StatusUnauthorized)

	instant := time.Now().Add(3 * time.Second).Truncate(time.Second)
	f.kubectl("patch", "apikey", "expiring", "--type=merge", fmt.Sprintf(`--patch={"spec":{"expiresAt":%q}}`, instant.UTC().Format(time.RFC3339)))
	f.assertExpiresAt(gateway, tokens["expiring"], instant)
	vigil.end()
}

// assertExpiresAt asks until after the instant. What is answered before must be granted, what is asked from then on must be refused.
func (f *fixture) assertExpiresAt(gateway, token string, instant time.Time) {
	f.Helper()
	before, after := 0, 0
	framework.Eventually(f, "the key was asked for before and after it expired", func() bool {
		asked := time.Now()
		status := f.ask(gateway, token)
		answered := time.Now()
		switch {
		case answered.Before(instant):
			before++
			if status != http.StatusOK {
				f.Fatalf("answered %d %s before the key expires", status, instant.Sub(answered))
			}
		case !asked.Before(instant):
			after++
			if status != http.StatusUnauthorized {
				f.Fatalf("answered %d, asked %s after the key expired", status, asked.Sub(instant))
			}
		}
		return after >= 10
	})
	if before == 0 {
		f.Fatal("the key was never asked for before it expired")
	}
}

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

// TestInvariant5_KeysAreRefusedWithoutTheController deactivates, deletes and expires keys while no controller runs.
func TestInvariant5_KeysAreRefusedWithoutTheController(t *testing.T) {
	f := newFixture(t, testenv.Shared(t))
	tokens := f.issueWithTemporaryController("kept", "deactivated", "deleted", "expiring")
	gateway := startAuthenticator(t, f.Env.Config).Address("authenticator")
	for _, issued := range tokens {
		f.awaitStatus(gateway, issued, http.StatusOK)
	}
	poller := f.startPolling(gateway, map[string]int{tokens["kept"]: http.StatusOK})

	f.kubectl("patch", "apikey", "deactivated", "--type=merge", `--patch={"spec":{"active":false}}`)
	f.awaitStatus(gateway, tokens["deactivated"], http.StatusUnauthorized)
	if active := f.kubectl("get", "apikey", "deactivated", `--output=jsonpath={.status.conditions[?(@.type=="Active")].status}`); active != "True" {
		t.Errorf("got the condition Active %q, want \"True\": no controller runs that could write the status", active)
	}

	f.kubectl("delete", "apikey", "deleted")
	f.awaitStatus(gateway, tokens["deleted"], http.StatusUnauthorized)

	expiresAt := time.Now().Add(3 * time.Second).Truncate(time.Second)
	f.kubectl("patch", "apikey", "expiring", "--type=merge", fmt.Sprintf(`--patch={"spec":{"expiresAt":%q}}`, expiresAt.UTC().Format(time.RFC3339)))
	f.assertExpiresAt(gateway, tokens["expiring"], expiresAt)
	poller.stop()
}

// assertExpiresAt checks a token until after its expiry. A response before the expiry must grant the check, and one to a check that was
// sent after it must deny the check.
func (f *fixture) assertExpiresAt(gateway, token string, expiresAt time.Time) {
	f.Helper()
	before, after := 0, 0
	framework.Eventually(f, "the token was checked before and after its expiry", func() bool {
		sent := time.Now()
		status := f.check(gateway, token)
		received := time.Now()
		switch {
		case received.Before(expiresAt):
			before++
			if status != http.StatusOK {
				f.Fatalf("got status %d %s before the expiry, want 200", status, expiresAt.Sub(received))
			}
		case !sent.Before(expiresAt):
			after++
			if status != http.StatusUnauthorized {
				f.Fatalf("got status %d %s after the expiry, want 401", status, sent.Sub(expiresAt))
			}
		}
		return after >= 10
	})
	if before == 0 {
		f.Fatal("got no response before the expiry, want at least one")
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"sync"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
)

func TestReveal_PrintsATokenOnce(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.types("create", "Partner", "-r", "--secret-name=partner-token", "--secret-key=key", "--secret-ttl=1h")
	key := terminal.key("Partner")
	if spec := key.Spec.Secret; spec == nil || spec.Name != "partner-token" || spec.Key != "key" || spec.TTL.Duration != time.Hour {
		t.Errorf("spec.secret is %+v", spec)
	}
	revealed := terminal.types("reveal", key.Name)
	terminal.assertTokenOf(key, strings.TrimSuffix(revealed.stdout, "\n"))
	if terminal.secret("partner-token") != nil {
		t.Error("the Secret is not deleted")
	}
	terminal.types("reveal", key.Name)
	terminal.assertGolden()
}

func TestReveal_OneOfConcurrentCallsGetsTheToken(t *testing.T) {
	const many = 8
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	results := make([]result, many)
	var revealing sync.WaitGroup
	for i := range results {
		revealing.Go(func() { results[i] = terminal.run("reveal", "partner") })
	}
	revealing.Wait()
	got := 0
	for _, result := range results {
		switch {
		case result.code == 0:
			terminal.assertTokenOf(terminal.key("App partner"), strings.TrimSuffix(result.stdout, "\n"))
			got++
		case result.code != exitFailure || result.stdout != "":
			t.Errorf("without the token, the result is %+v", result)
		}
	}
	if got != 1 {
		t.Errorf("%d calls got the token", got)
	}
}

func TestReveal_WaitsUntilTheKeyIsIssued(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner")
	terminal.types("reveal", "partner", "--wait=false")
	terminal.types("reveal", "partner", "--timeout=300ms")
	runcontroller.Start(t, terminal.env, terminal.namespace)
	revealed := terminal.types("reveal", "partner")
	terminal.assertTokenOf(terminal.key("App partner"), strings.TrimSuffix(revealed.stdout, "\n"))
	terminal.assertGolden()
}

func TestReveal_RefusesKeysWithoutASecretOfTheirs(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("imported", func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(token.New()) })
	terminal.apply("ended")
	terminal.apply("replaced")
	for _, name := range []string{"imported", "ended", "replaced"} {
		terminal.awaitReason(name, v1alpha1.ReasonIssued)
	}
	terminal.run("deactivate", "ended")
	forged := terminal.secret("replaced-token")
	framework.Must(terminal, terminal.env.Client.Delete(t.Context(), forged))
	forged.ResourceVersion, forged.UID = "", ""
	forged.Data = map[string][]byte{"token": []byte(token.New())}
	framework.Must(terminal, terminal.env.Client.Create(t.Context(), forged))

	terminal.types("reveal", "imported")
	terminal.types("reveal", "ended")
	terminal.types("reveal", "replaced")
	terminal.types("reveal", "unknown")
	if terminal.secret("replaced-token") == nil {
		t.Error("a Secret of another token is deleted")
	}
	terminal.assertGolden()
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

// runWith runs a command with an input, as from a pipe.
func (t *terminal) runWith(input string, args ...string) result {
	t.Helper()
	command := t.command(args...)
	command.Stdin = strings.NewReader(input)
	return t.start(command)()
}

// pipes runs a command with an input, and records it without the input.
func (t *terminal) pipes(input string, args ...string) result {
	t.Helper()
	got := t.runWith(input, args...)
	t.record(append(args, "<token"), got)
	return got
}

func importedAs(plaintext string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) {
		key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(plaintext), token.Hint(plaintext)
	}
}

func recordOf(plaintext string, issued, used time.Duration) v1alpha1.TokenRecord {
	r := record(issued, used)
	r.Hash, r.Hint = token.Hash(plaintext), token.Hint(plaintext)
	return r
}

func TestWhose_FindsTheKeyOfAToken(t *testing.T) {
	terminal := newTerminalWithController(t)
	former := tokenIn(terminal.run("create", "Frontend App", "-r", "--expires-in=30d", "--name=frontend").stdout)
	newest := tokenIn(terminal.run("rotate", "frontend", "--overlap=1h").stdout)
	terminal.pipes(newest+"\n", "whose")
	terminal.pipes("Bearer "+former, "whose", "-n", terminal.namespace)
	terminal.pipes(newest, "whose", "-o", "name")
	terminal.pipes(newest, "whose", "-o", "jsonpath={.metadata.name} {.spec.appName}")
	terminal.run("deactivate", "frontend")
	terminal.awaitReason("frontend", v1alpha1.ReasonDeactivated)
	terminal.pipes(newest, "whose")
	terminal.assertGolden()
}

func TestWhose_NamesWhatMatters(t *testing.T) {
	terminal := newTerminal(t)
	plaintext := token.New()
	terminal.apply("partner", importedAs(plaintext), func(key *v1alpha1.APIKey) {
		key.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "keys", v1alpha1.LabelManager: "true"}
		key.Spec.WriteAccess = true
	})
	terminal.pipes(plaintext, "whose") // the controller has not accepted it
	terminal.issue("partner", recordOf(plaintext, 5*day, 3*time.Hour))
	terminal.pipes(plaintext, "whose")
	bootstrap := token.New()
	terminal.apply("bootstrap", importedAs(bootstrap), labelled(v1alpha1.LabelBootstrap, "true"))
	terminal.issue("bootstrap", recordOf(bootstrap, 5*day, 0))
	terminal.pipes(bootstrap, "whose")
	terminal.assertGolden()
}

func TestWhose_NoKeyHasTheToken(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner")
	plaintext := token.New()
	terminal.pipes(plaintext, "whose")
	terminal.pipes(plaintext, "whose", "-n", terminal.namespace, "-o", "name")
	terminal.pipes(plaintext[:40], "whose", "--deactivate")
	terminal.pipes("a-token-of-another-tool", "whose")
	terminal.pipes("", "whose")
	terminal.pipes("two tokens", "whose")
	terminal.logIn(terminal.env.User(t, "jack"))
	terminal.allow("jack", "get", "list")
	terminal.pipes(plaintext, "whose")
	terminal.pipes(plaintext, "whose", "-n", terminal.namespace)
	terminal.assertGolden()
}

func TestWhose_DeactivatesTheKeys(t *testing.T) {
	terminal := newTerminalWithController(t)
	former := tokenIn(terminal.run("create", "Frontend App", "-r", "--name=frontend").stdout)
	rotated := terminal.run("rotate", "frontend", "--overlap=1h")
	terminal.pipes(former, "whose", "--deactivate")
	terminal.awaitReason("frontend", v1alpha1.ReasonDeactivated)
	terminal.pipes(tokenIn(rotated.stdout), "whose", "--deactivate") // it has ended already
	if key := terminal.key("Frontend App"); !apikey.IsRetired(key) {
		t.Error("the key is active")
	}

	plaintext := token.New() // in two namespaces
	terminal.apply("partner", importedAs(plaintext), labelled("kustomize.toolkit.fluxcd.io/name", "keys"))
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	other := *terminal
	other.namespace = terminal.env.Namespace(t)
	other.apply("copy", importedAs(plaintext))
	next := other.apply("next", func(key *v1alpha1.APIKey) { key.Spec.AppName = "App copy" })
	terminal.pipes(plaintext, "whose", "--deactivate", "-n", terminal.namespace)
	terminal.awaitReason("partner", v1alpha1.ReasonDeactivated)
	got := terminal.runWith(plaintext, "whose", "--deactivate")
	if got.code != 0 || !strings.Contains(got.stdout, "\n  Token:      ended at ") || strings.Count(got.stdout, "API Key deactivated successfully\n") != 1 ||
		got.stderr != "\nAPIKey \""+next.Name+"\" gets the app name \"App copy\" now.\n" {
		t.Errorf("whose: %+v", got)
	}
	terminal.assertGolden()
}

// The token stays on the machine of the user: neither the token nor its hash is in a request, a log or a message.
func TestWhose_SendsNoToken(t *testing.T) {
	terminal := newTerminal(t)
	plaintext := token.New()
	terminal.apply("partner", importedAs(plaintext))
	var mu sync.Mutex
	var sent bytes.Buffer
	terminal.throughProxy(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			request, err := httputil.DumpRequest(r, true)
			framework.Must(t, err)
			mu.Lock()
			sent.Write(request)
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	})
	got := terminal.runWith("Bearer "+plaintext+"\n", "whose", "--deactivate", "-n", terminal.namespace, "-v=6")
	if got.code != 0 || !strings.Contains(got.stdout, "App partner") {
		t.Fatalf("whose: %+v", got)
	}
	requests := sent.String()
	if !strings.Contains(requests, "PATCH ") {
		t.Errorf("the requests are %s", requests)
	}
	for _, secret := range []string{plaintext, strings.TrimPrefix(token.Hash(plaintext), "sha256:"), base64.StdEncoding.EncodeToString([]byte(plaintext))} {
		if strings.Contains(requests, secret) || strings.Contains(got.stdout+got.stderr, secret) {
			t.Errorf("%q is in the requests or in the output", secret)
		}
	}
}

func TestFoundToken_State(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	for name, test := range map[string]struct {
		spec   v1alpha1.APIKeySpec
		status v1alpha1.APIKeyStatus
		record *v1alpha1.TokenRecord
		key    func(*v1alpha1.APIKey)
		want   string
	}{
		"the newest":           {record: &v1alpha1.TokenRecord{NotBefore: at(-day)}, want: "active"},
		"an accepted claim":    {record: &v1alpha1.TokenRecord{NotBefore: at(0), ClaimedAt: at(0)}, want: "active"},
		"a claim":              {record: &v1alpha1.TokenRecord{ClaimedAt: at(0)}, want: "not accepted (<none>)"},
		"a declared hash":      {want: "not accepted (<none>)"},
		"superseded":           {record: &v1alpha1.TokenRecord{NotBefore: at(-day), NotAfter: at(time.Second)}, want: "superseded, accepted until 2026-01-10T00:00:01Z"},
		"superseded and ended": {record: &v1alpha1.TokenRecord{NotBefore: at(-day), NotAfter: at(0)}, want: "superseded, ended at 2026-01-10T00:00:00Z"},
		"ended": {
			spec: v1alpha1.APIKeySpec{Active: new(false)}, status: v1alpha1.APIKeyStatus{DeactivatedAt: at(-day)},
			record: &v1alpha1.TokenRecord{NotBefore: at(-9 * day)}, want: "ended at 2026-01-09T00:00:00Z",
		},
		"deactivated, not recorded": {
			spec: v1alpha1.APIKeySpec{Active: new(false)}, record: &v1alpha1.TokenRecord{NotBefore: at(-9 * day)}, want: "ended",
		},
		"expired, not recorded": {
			spec: v1alpha1.APIKeySpec{ExpiresAt: at(-2 * day)}, record: &v1alpha1.TokenRecord{NotBefore: at(-9 * day)}, want: "ended at 2026-01-08T00:00:00Z",
		},
		"unreadable": {
			record: &v1alpha1.TokenRecord{NotBefore: at(-9 * day)}, key: func(key *v1alpha1.APIKey) { key.Unreadable = []string{"spec.expiresAt"} },
			want: "not accepted, because fields of the key cannot be read",
		},
	} {
		t.Run(name, func(t *testing.T) {
			key := &v1alpha1.APIKey{Spec: test.spec, Status: test.status}
			if test.key != nil {
				test.key(key)
			}
			if got := (foundToken{key, test.record}).state(now); got != test.want {
				t.Errorf("the state is %q, want %q", got, test.want)
			}
		})
	}
}

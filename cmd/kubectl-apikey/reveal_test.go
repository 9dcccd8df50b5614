// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
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
	terminal.types("reveal", "partner", "--timeout=2s")
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

func TestReveal_PrintsTheTokenIfTheResponseToTheDeletionIsLost(t *testing.T) {
	lost := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	badGateway := func(w http.ResponseWriter) { http.Error(w, "bad gateway", http.StatusBadGateway) }
	shared := "\nThe response to the deletion was lost. Another user may have deleted the Secret and have the token too: if you cannot exclude " +
		"that, end it: kubectl apikey rotate partner --overlap=0s"
	for name, test := range map[string]struct {
		reaches func(deletion int) bool     // the API server
		answer  func(w http.ResponseWriter) // of the proxy
		loses   func(deletion int) bool     // the response of the API server, or the request
		advice  string
	}{
		"every response is lost": {
			reaches: func(int) bool { return true }, answer: lost, loses: func(int) bool { return true }, advice: shared,
		},
		"the proxy answers for the API server": {
			reaches: func(int) bool { return true }, answer: badGateway, loses: func(int) bool { return true }, advice: shared,
		},
		"the first request is lost": {
			reaches: func(deletion int) bool { return deletion > 1 }, answer: badGateway, loses: func(deletion int) bool { return deletion == 1 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			terminal := newTerminalWithController(t)
			terminal.apply("partner")
			terminal.awaitReason("partner", v1alpha1.ReasonIssued)
			deletions := 0
			terminal.throughProxy(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method != http.MethodDelete {
						next.ServeHTTP(w, r)
						return
					}
					deletions++
					response := httptest.NewRecorder()
					if test.reaches(deletions) {
						next.ServeHTTP(response, r)
					}
					if test.loses(deletions) {
						test.answer(w)
						return
					}
					maps.Copy(w.Header(), response.Header())
					w.WriteHeader(response.Code)
					_, _ = w.Write(response.Body.Bytes())
				})
			})
			revealed := terminal.run("reveal", "partner")
			terminal.assertTokenOf(terminal.key("App partner"), strings.TrimSuffix(revealed.stdout, "\n"))
			want := "\nSave the token now: it was shown only once. Its Secret \"partner-token\" is deleted." + test.advice + "\n"
			if revealed.code != 0 || revealed.stderr != want {
				t.Errorf("reveal: %+v", revealed)
			}
			if terminal.secret("partner-token") != nil {
				t.Error("the Secret is not deleted")
			}
		})
	}
}

func TestReveal_PrintsNoTokenWhoseSecretStays(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	terminal.throughProxy(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				http.Error(w, "gateway timeout", http.StatusGatewayTimeout)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	terminal.types("reveal", "partner")
	if terminal.secret("partner-token") == nil {
		t.Error("the Secret is deleted")
	}
	terminal.assertGolden()
}

func TestReveal_ReadsASecretThatChangesAgain(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	var once sync.Once
	terminal.throughProxy(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				once.Do(func() {
					secret := terminal.secret("partner-token")
					secret.Labels["copied"] = "true"
					framework.Must(terminal, terminal.env.Client.Update(t.Context(), secret))
				})
			}
			next.ServeHTTP(w, r)
		})
	})
	revealed := terminal.run("reveal", "partner")
	terminal.assertTokenOf(terminal.key("App partner"), strings.TrimSuffix(revealed.stdout, "\n"))
	if terminal.secret("partner-token") != nil {
		t.Error("the Secret is not deleted")
	}
}

func TestReveal_RestoresTheSecretIfTheTokenCannotBePrinted(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	for name, test := range map[string]struct {
		stdout *os.File
		err    string
	}{
		"full disk":   {openFull(terminal), "no space left on device"},
		"closed pipe": {newClosedPipe(terminal), "broken pipe"},
	} {
		var stderr strings.Builder
		command := terminal.command("reveal", "partner")
		command.Stdout, command.Stderr = test.stdout, &stderr
		_ = command.Run() // it fails with an exit code
		want := "Error: printing the token failed: write /dev/stdout: " + test.err +
			"\nError: the Secret \"partner-token\" was created again: run the command again\n"
		if code := command.ProcessState.ExitCode(); code != exitFailure || stderr.String() != want {
			t.Errorf("%s: exit code %d, %s", name, code, &stderr)
		}
	}
	if got, want := terminal.runClosed("reveal", "partner"), "Error: "+outputClosed+"\n"; got.code != exitFailure || got.stderr != want {
		t.Errorf("closed output: %+v, want %s", got, want)
	}
	revealed := terminal.run("reveal", "partner")
	terminal.assertTokenOf(terminal.key("App partner"), strings.TrimSuffix(revealed.stdout, "\n"))
}

// openFull opens a file on a full disk.
func openFull(t *terminal) *os.File {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	framework.Must(t, err)
	t.Cleanup(func() { framework.Must(t, full.Close()) })
	return full
}

// newClosedPipe returns a pipe that no process reads from.
func newClosedPipe(t *terminal) *os.File {
	t.Helper()
	reader, writer, err := os.Pipe()
	framework.Must(t, err)
	framework.Must(t, reader.Close())
	t.Cleanup(func() { framework.Must(t, writer.Close()) })
	return writer
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// unfinished is the response to a creation while another one of the app name is not finished.
var unfinished = regexp.MustCompile(`^{"errorCode":409,"errorMessage":"A creation that is not finished holds the app name \\"Shop\\"\. ` +
	`If it fails, the app name is free at ([-0-9T:]+Z) at the latest\. It is the key with the ID [-0-9a-f]{36}\.","payload":null}$`)

// A console is killed after the controller has issued the key, and before the response with the token is sent.
func TestCreate_AKeyWhoseConsoleIsKilledIsDeactivated(t *testing.T) {
	f := newInterrupted(t)
	confirming := make(chan struct{})
	proxy := startProxy(t, f.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPatch && strings.Contains(bodyOf(r), "keys.squirrel.dev/unconfirmed") {
				close(confirming)
				<-t.Context().Done()
				return
			}
			forward.ServeHTTP(w, r)
		})
	})
	console := operator.StartConsole(t, proxy.config, f.Namespace)
	f.awaitActive(console.Address("console"), f.token, "App writer")
	failed := make(chan error, 1)
	request := f.createRequest(console.Address("console"))
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			err = response.Body.Close()
		}
		failed <- err
	}()
	framework.Receive(t, framework.Timeout, "the console confirms the key", confirming)
	console.Kill()
	if err := <-failed; err == nil {
		t.Error("the client of the killed console gets a response")
	}
	f.assertDeactivatedInTime()
}

// The Kubernetes API pauses when the console creates the key, for longer than the console waits, and creates it then.
func TestCreate_AKeyThatThePausedAPICreatesLateIsDeactivated(t *testing.T) {
	f := newInterrupted(t)
	resume := make(chan struct{})
	proxy := startProxy(t, f.Env.Config, func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPost:
				select {
				case <-resume:
				case <-t.Context().Done():
					return
				}
			case strings.Contains(r.URL.Path, "/apikeys/shop-"): // the new key
				panic(http.ErrAbortHandler)
			}
			forward.ServeHTTP(w, r)
		})
	})
	console := operator.StartConsole(t, proxy.config, f.Namespace)
	f.awaitActive(console.Address("console"), f.token, "App writer")
	status, _, body := send(t, f.createRequest(console.Address("console")))
	const want = `{"errorCode":503,"errorMessage":"The key was not accepted within 10s, and deleting it failed. If it exists, the console ` +
		`deactivates it within two minutes after the Kubernetes API responds again. Try again then.","payload":null}`
	if status != http.StatusServiceUnavailable || body != want {
		t.Errorf("the response is %d %s, want %s", status, body, want)
	}
	close(resume)
	f.assertDeactivatedInTime()
}

// interrupted is a namespace whose controller runs, with a key for requests to consoles.
type interrupted struct {
	*fixture
	token string
}

func newInterrupted(t *testing.T) *interrupted {
	t.Helper()
	t.Parallel()
	f := newFixture(t, testenv.Start(t)) // in the shared one, this controller would process the keys of other tests
	operator.StartController(t, f.Env.Config)
	f.CreateKey("writer", func(key *v1alpha1.APIKey) { key.Spec.ReadAccess, key.Spec.WriteAccess = true, true })
	f.WaitForReady("writer", v1alpha1.ReasonIssued)
	return &interrupted{f, f.tokenFrom("writer-token", "token")}
}

func bodyOf(r *http.Request) string {
	content, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(content))
	return string(content)
}

func (f *interrupted) createRequest(console string) *http.Request {
	f.Helper()
	const body = `{"app_name": "Shop", "read_access": true, "write_access": false}`
	request, err := http.NewRequestWithContext(f.Context(), http.MethodPost, "http://"+console+"/api/v1/api-keys", strings.NewReader(body))
	framework.Must(f, err)
	request.Header.Set("X-API-Key", f.token)
	request.Header.Set("Content-Type", "application/json")
	return request
}

// assertDeactivatedInTime checks that the key of an interrupted creation is accepted, that other consoles leave it alone for a minute by the
// API server's clock and deactivate it then, and that its app name is free afterwards.
func (f *interrupted) assertDeactivatedInTime() {
	f.Helper()
	var key *v1alpha1.APIKey
	framework.Eventually(f, "the key is issued", func() bool {
		for _, k := range f.Keys() {
			if k.Spec.AppName == "Shop" && len(k.Status.Tokens) > 0 && k.Status.Tokens[0].NotBefore != nil {
				key = &k
			}
		}
		return key != nil
	})
	var addresses []string
	for range 2 {
		addresses = append(addresses, operator.StartConsole(f, f.Env.Config, f.Namespace).Address("console"))
	}
	for _, address := range addresses {
		f.awaitActive(address, f.token, "App writer", "Shop")
		status, _, body := send(f, f.createRequest(address))
		free := unfinished.FindStringSubmatch(body)
		if status != http.StatusConflict || free == nil {
			f.Fatalf("the response to a second creation is %d %s", status, body)
		}
		if at := key.CreationTimestamp.Add(65 * time.Second).UTC().Format(time.RFC3339); free[1] != at {
			f.Errorf("the app name is free at %s, want %s", free[1], at)
		}
	}
	f.Env.UpdateInEtcd(f, f.Namespace, key.Name, func(object map[string]any) {
		object["metadata"].(map[string]any)["creationTimestamp"] = time.Now().Add(-2 * time.Minute).UTC().Format(time.RFC3339)
	})
	f.WaitForReady(key.Name, v1alpha1.ReasonDeactivated)
	framework.Eventually(f, "the app name is free", func() bool {
		status, _, _ := send(f, f.createRequest(addresses[0]))
		return status == http.StatusOK
	})
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// fixture is a namespace with keys.
type fixture struct{ *testenv.Fixture }

func newFixture(t *testing.T, env *testenv.Env) *fixture {
	t.Helper()
	return &fixture{testenv.NewFixture(t, env)}
}

// issue creates keys, waits until a running controller has issued them, and returns their tokens by name.
func (f *fixture) issue(names ...string) (tokens map[string]string) {
	f.Helper()
	for _, name := range names {
		f.CreateKey(name)
	}
	tokens = make(map[string]string, len(names))
	for _, name := range names {
		f.WaitForReady(name, v1alpha1.ReasonIssued)
		tokens[name] = f.tokenFrom(name+"-token", "token")
	}
	return tokens
}

// issueWithTemporaryController runs a controller, issues keys, and kills the controller.
func (f *fixture) issueWithTemporaryController(names ...string) (tokens map[string]string) {
	f.Helper()
	controller := operator.StartController(f, f.Env.Config)
	tokens = f.issue(names...)
	controller.Kill()
	return tokens
}

// tokenFrom returns the token in a field of a one-time Secret.
func (f *fixture) tokenFrom(name, field string) string {
	f.Helper()
	secret := f.Secret(name)
	if secret == nil || len(secret.Data[field]) == 0 {
		f.Fatalf("got no %q in Secret %q, want a token", field, name)
	}
	return string(secret.Data[field])
}

// deactivate deactivates a key with kubectl.
func (f *fixture) deactivate(name string) {
	f.Helper()
	f.kubectl("patch", "apikey", name, "--type=merge", `--patch={"spec":{"active":false}}`)
}

// deleteKey deletes a key and its Secret, so that a new key of the same name can be issued at once.
func (f *fixture) deleteKey(name string) {
	f.Helper()
	framework.Must(f, f.Env.Client.Delete(f.Context(), f.Key(name)))
	err := f.Env.Client.Delete(f.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name + "-token"}})
	framework.Must(f, client.IgnoreNotFound(err))
}

func (f *fixture) kubectl(args ...string) string {
	f.Helper()
	output, err := f.Env.Kubectl(f, append(args, "--namespace="+f.Namespace)...)
	framework.Must(f, err)
	return output
}

// check sends a token to an authenticator, as Traefik does for a read, and returns the status of the response.
func (f *fixture) check(authenticator, token string) int {
	f.Helper()
	status, err := check(http.DefaultClient, authenticator, f.Namespace, token)
	framework.Must(f, err)
	return status
}

// awaitStatus waits until checks of a token get this status.
func (f *fixture) awaitStatus(authenticator, token string, status int) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("a check gets the status %d", status), func() bool { return f.check(authenticator, token) == status })
}

// check is fixture.check for any goroutine.
func check(client *http.Client, authenticator, namespace, token string) (status int, err error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+authenticator+"/auth/forward/"+namespace, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("X-Forwarded-Method", http.MethodGet)
	if token != "" {
		request.Header.Set("X-API-Key", token)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body) // the connection is reused only after that
	return response.StatusCode, err
}

// get requests a path of a process's health or metrics server, and returns the status and the body of the response.
func (f *fixture) get(server, path string) (status int, body string) {
	f.Helper()
	request, err := http.NewRequestWithContext(f.Context(), http.MethodGet, "http://"+server+path, nil)
	framework.Must(f, err)
	status, _, body = send(f, request)
	return status, body
}

// send sends a request and returns the response.
func send(t testing.TB, request *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	framework.Must(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	framework.Must(t, err)
	return response.StatusCode, response.Header, string(content)
}

// poller checks the same tokens over and over. The first wrong status fails the test.
type poller struct {
	t      testing.TB
	rounds atomic.Int64
	stop   func()
}

// startPolling checks tokens at an authenticator until the poller is stopped. Each token must get the status that want maps it to.
func (f *fixture) startPolling(authenticator string, want map[string]int) *poller {
	f.Helper()
	stopped := make(chan struct{})
	var running sync.WaitGroup
	p := &poller{t: f}
	p.stop = sync.OnceFunc(func() {
		close(stopped)
		running.Wait()
	})
	running.Go(func() {
		for !f.Failed() {
			for token, status := range want {
				if got, err := check(http.DefaultClient, authenticator, f.Namespace, token); err != nil || got != status {
					f.Errorf("round %d: got status %d (%v), want %d", p.rounds.Load(), got, err, status)
				}
			}
			p.rounds.Add(1)
			select {
			case <-stopped:
				return
			case <-time.After(framework.PollInterval):
			}
		}
	})
	f.Cleanup(p.stop)
	return p
}

// awaitRounds waits until the poller has checked all tokens so many more times.
func (p *poller) awaitRounds(rounds int64) {
	p.t.Helper()
	target := p.rounds.Load() + rounds
	framework.Eventually(p.t, fmt.Sprintf("the poller has made %d more rounds", rounds), func() bool {
		return p.t.Failed() || p.rounds.Load() >= target
	})
}

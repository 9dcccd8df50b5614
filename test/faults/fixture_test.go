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

// issue declares keys, which a running controller issues, and returns their tokens.
func (f *fixture) issue(names ...string) (tokens map[string]string) {
	f.Helper()
	for _, name := range names {
		f.CreateKey(name)
	}
	tokens = make(map[string]string, len(names))
	for _, name := range names {
		f.WaitForReady(name, v1alpha1.ReasonIssued)
		tokens[name] = f.handedOver(name+"-token", "token")
	}
	return tokens
}

// issueOnce runs a controller until it has issued these keys, and no longer.
func (f *fixture) issueOnce(names ...string) (tokens map[string]string) {
	f.Helper()
	controller := operator.StartController(f, f.Env.Config)
	tokens = f.issue(names...)
	controller.Kill()
	return tokens
}

// handedOver returns the token that a one-time Secret holds.
func (f *fixture) handedOver(secret, field string) string {
	f.Helper()
	found := &corev1.Secret{}
	framework.Must(f, f.Env.Client.Get(f.Context(), client.ObjectKey{Namespace: f.Namespace, Name: secret}, found))
	if len(found.Data[field]) == 0 {
		f.Fatalf("Secret %q has no %q", secret, field)
	}
	return string(found.Data[field])
}

// deactivate does so as a person does.
func (f *fixture) deactivate(name string) {
	f.Helper()
	f.kubectl("patch", "apikey", name, "--type=merge", `--patch={"spec":{"active":false}}`)
}

// delete takes a key away, and its Secret if it is still there: so that a key of this name can have one at once.
func (f *fixture) delete(name string) {
	f.Helper()
	framework.Must(f, f.Env.Client.Delete(f.Context(), &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name}}))
	err := f.Env.Client.Delete(f.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: name + "-token"}})
	framework.Must(f, client.IgnoreNotFound(err))
}

func (f *fixture) kubectl(args ...string) string {
	f.Helper()
	output, err := f.Env.Kubectl(f, append(args, "--namespace="+f.Namespace)...)
	framework.Must(f, err)
	return output
}

// ask asks an authenticator, as Traefik does, whether a token may read, and returns the status of the answer.
func (f *fixture) ask(authenticator, token string) int {
	f.Helper()
	status, err := ask(http.DefaultClient, authenticator, f.Namespace, token)
	framework.Must(f, err)
	return status
}

// awaitAnswer asks until the authenticator answers with this status.
func (f *fixture) awaitAnswer(authenticator, token string, status int) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("the answer is %d", status), func() bool { return f.ask(authenticator, token) == status })
}

// ask does what world.ask does, in any goroutine.
func ask(client *http.Client, authenticator, namespace, token string) (status int, err error) {
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
	_, err = io.Copy(io.Discard, response.Body) // so that the connection is kept
	return response.StatusCode, err
}

// health asks a process's health server, and returns the status and the text of the answer.
func (f *fixture) health(server, path string) (status int, text string) {
	f.Helper()
	request, err := http.NewRequestWithContext(f.Context(), http.MethodGet, "http://"+server+path, nil)
	framework.Must(f, err)
	status, _, text = fetch(f, request)
	return status, text
}

// fetch sends a request and returns the whole answer.
func fetch(t testing.TB, request *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	framework.Must(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	framework.Must(t, err)
	return response.StatusCode, response.Header, string(content)
}

// vigil asks for the same tokens over and over, and fails the test at the first wrong answer.
type vigil struct {
	t      testing.TB
	rounds atomic.Int64
	end    func()
}

// keepWatch asks an authenticator for these tokens, which must always be answered with these statuses, until the vigil ends.
func (f *fixture) keepWatch(authenticator string, want map[string]int) *vigil {
	f.Helper()
	ended := make(chan struct{})
	var watching sync.WaitGroup
	v := &vigil{t: f}
	v.end = sync.OnceFunc(func() {
		close(ended)
		watching.Wait()
	})
	watching.Go(func() {
		for !f.Failed() {
			for token, status := range want {
				if got, err := ask(http.DefaultClient, authenticator, f.Namespace, token); err != nil || got != status {
					f.Errorf("round %d: answered %d (%v), want %d", v.rounds.Load(), got, err, status)
				}
			}
			v.rounds.Add(1)
			select {
			case <-ended:
				return
			case <-time.After(poll):
			}
		}
	})
	f.Cleanup(v.end)
	return v
}

// goOn waits until the tokens were asked for so many times more.
func (v *vigil) goOn(rounds int64) {
	v.t.Helper()
	until := v.rounds.Load() + rounds
	framework.Eventually(v.t, "the vigil has gone on", func() bool { return v.t.Failed() || v.rounds.Load() >= until })
}

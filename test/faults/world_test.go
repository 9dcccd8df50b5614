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
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// world is a namespace with keys, and what a test does there.
type world struct {
	*testing.T
	env       *testenv.Env
	namespace string
}

func newWorld(t *testing.T, env *testenv.Env) *world {
	t.Helper()
	return &world{T: t, env: env, namespace: env.Namespace(t)}
}

// create declares a read-only key. Its app name is "App <name>".
func (w *world) create(name string, change ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	w.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	for _, c := range change {
		c(key)
	}
	must(w.T, w.env.Client.Create(w.Context(), key))
	return key
}

// await waits until a key's Ready condition has this reason.
func (w *world) await(name, reason string) {
	w.Helper()
	eventually(w.T, name+" is "+reason, func() bool {
		key := &v1alpha1.APIKey{}
		must(w.T, w.env.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, key))
		ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == reason && key.Status.ObservedGeneration == key.Generation
	})
}

// issue declares keys, which a running controller issues, and returns their tokens.
func (w *world) issue(names ...string) (tokens map[string]string) {
	w.Helper()
	for _, name := range names {
		w.create(name)
	}
	tokens = make(map[string]string, len(names))
	for _, name := range names {
		w.await(name, v1alpha1.ReasonIssued)
		tokens[name] = w.handedOver(name+"-token", "token")
	}
	return tokens
}

// issueOnce runs a controller until it has issued these keys, and no longer.
func (w *world) issueOnce(names ...string) (tokens map[string]string) {
	w.Helper()
	controller := operator.StartController(w.T, w.env.Config)
	tokens = w.issue(names...)
	controller.Kill()
	return tokens
}

// handedOver returns the token that a one-time Secret holds.
func (w *world) handedOver(secret, field string) string {
	w.Helper()
	found := &corev1.Secret{}
	must(w.T, w.env.Client.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: secret}, found))
	if len(found.Data[field]) == 0 {
		w.Fatalf("Secret %q has no %q", secret, field)
	}
	return string(found.Data[field])
}

// deactivate does so as a person does.
func (w *world) deactivate(name string) {
	w.Helper()
	w.kubectl("patch", "apikey", name, "--type=merge", `--patch={"spec":{"active":false}}`)
}

// delete takes a key away, and its Secret if it is still there: so that a key of this name can have one at once.
func (w *world) delete(name string) {
	w.Helper()
	must(w.T, w.env.Client.Delete(w.Context(), &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}))
	err := w.env.Client.Delete(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name + "-token"}})
	must(w.T, client.IgnoreNotFound(err))
}

func (w *world) kubectl(args ...string) string {
	w.Helper()
	output, err := w.env.Kubectl(w.T, append(args, "--namespace="+w.namespace)...)
	must(w.T, err)
	return output
}

// ask asks an authenticator, as Traefik does, whether a token may read, and returns the status of the answer.
func (w *world) ask(authenticator, token string) int {
	w.Helper()
	status, err := ask(http.DefaultClient, authenticator, w.namespace, token)
	must(w.T, err)
	return status
}

// awaitAnswer asks until the authenticator answers with this status.
func (w *world) awaitAnswer(authenticator, token string, status int) {
	w.Helper()
	eventually(w.T, fmt.Sprintf("the answer is %d", status), func() bool { return w.ask(authenticator, token) == status })
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
func (w *world) health(server, path string) (status int, text string) {
	w.Helper()
	request, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "http://"+server+path, nil)
	must(w.T, err)
	status, _, text = fetch(w.T, request)
	return status, text
}

// fetch sends a request and returns the whole answer.
func fetch(t testing.TB, request *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, response.Header, string(content)
}

// vigil asks for the same tokens over and over, and fails the test at the first wrong answer.
type vigil struct {
	t      testing.TB
	rounds atomic.Int64
	end    func()
}

// keepWatch asks an authenticator for these tokens, which must always be answered with these statuses, until the vigil ends.
func (w *world) keepWatch(authenticator string, want map[string]int) *vigil {
	w.Helper()
	ended := make(chan struct{})
	var watching sync.WaitGroup
	v := &vigil{t: w.T}
	v.end = sync.OnceFunc(func() {
		close(ended)
		watching.Wait()
	})
	watching.Go(func() {
		for !w.Failed() {
			for token, status := range want {
				if got, err := ask(http.DefaultClient, authenticator, w.namespace, token); err != nil || got != status {
					w.Errorf("round %d: answered %d (%v), want %d", v.rounds.Load(), got, err, status)
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
	w.Cleanup(v.end)
	return v
}

// goOn waits until the tokens were asked for so many times more.
func (v *vigil) goOn(rounds int64) {
	v.t.Helper()
	until := v.rounds.Load() + rounds
	eventually(v.t, "the vigil has gone on", func() bool { return v.t.Failed() || v.rounds.Load() >= until })
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/console/api"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

const (
	writeOnly = `{"app_name": "Writing App", "read_access": false, "write_access": true}`
	both      = `{"app_name": "Reading App", "read_access": true, "write_access": true}`
)

func labelled(o *api.Options) { o.Managers = api.LabelledManage }

// label gives a key the label of managers with this value, or takes it away with null.
func (w *world) label(key *keyclient.CreateResult, value string) {
	w.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {"keys.squirrel.dev/manager": %s}}}`, value)
	must(w.T, w.env.Client.Patch(w.Context(), key.Key, client.RawPatch("application/merge-patch+json", []byte(patch))))
}

// awaitStatus waits until a call is answered with this status.
func (c *console) awaitStatus(w *world, methodAndPath, token string, status int) {
	w.Helper()
	w.eventually(fmt.Sprintf("%s is answered with %d", methodAndPath, status), func() bool {
		return c.call(methodAndPath, token).status == status
	})
}

// noManager is what a key that does not manage is told.
func (w *world) noManager(key *keyclient.CreateResult) string {
	return "This key may not create or end keys: use one that manages keys, or let it manage them: " +
		"kubectl label apikey " + key.Key.Name + " --namespace=" + w.namespace + " keys.squirrel.dev/manager=true"
}

// announce sends a request without its body, and returns once the console waits for that.
func (c *console) announce(methodAndPath, token string) (sendBody func(body string), answered <-chan answer) {
	c.t.Helper()
	reader, writer := io.Pipe()
	waiting, answers := make(chan struct{}), make(chan answer, 1)
	request := c.request(methodAndPath, token, "")
	request.Body, request.ContentLength, request.GetBody = reader, -1, nil
	request.Header.Set("Expect", "100-continue")
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(waiting) }}))
	transport := &http.Transport{ExpectContinueTimeout: patience}
	c.t.Cleanup(transport.CloseIdleConnections)
	sender := &console{t: c.t, client: &http.Client{Transport: transport, Timeout: patience}}
	go func() { answers <- sender.send(request) }()
	select {
	case <-waiting:
	case early := <-answers:
		c.t.Fatalf("without its body, the request is answered %d %s", early.status, early.body)
	}
	return func(body string) {
		_, err := io.WriteString(writer, body)
		must(c.t, errors.Join(err, writer.Close()))
	}, answers
}

func TestWhereManagersAreLabelledAnAppCannotCreateOrEndKeys(t *testing.T) {
	w := newWorld(t)
	app := w.issue("An App", true, true)
	c := w.startConsole(labelled)
	end := "DELETE /v1/api-keys/" + string(w.reader.Key.UID)
	for _, value := range []string{"null", `"false"`, `"True"`, `""`} {
		w.label(app, value)
		for _, body := range []string{readOnly, writeOnly, both, "no JSON"} {
			c.call("POST /api/v1/api-keys", app.Token, body).refused(t, 403, w.noManager(app))
		}
		c.call(end, app.Token).refused(t, 403, w.noManager(app))
		c.call("DELETE /v1/api-keys/"+string(app.Key.UID)+"?force=true", app.Token).refused(t, 403, w.noManager(app))
	}
	payload[[]shown](t, c.call("GET /v1/api-keys", app.Token))
	payload[int](t, c.call("GET /v1/api-keys/count", w.reader.Token))
	c.call(end, w.reader.Token).refused(t, 401, "API key does not have write access")
	c.call(end, "").refused(t, 401, keyRequired)
	if keys := w.keys(); len(keys) != 1 || keys[0].UID != app.Key.UID || !*keys[0].Spec.Active {
		t.Errorf("the keys are %v", keys)
	}
}

func TestALabelledManagerHandsOnNoRightThatItLacks(t *testing.T) {
	const noReadAccess = "This key has no read access, so it cannot create a key that has: create one with write access alone, or use a " +
		"key that has both."
	w := newWorld(t)
	c := w.startConsole(labelled)
	w.label(w.writer, `"true"`)
	w.label(w.reader, `"true"`)
	c.awaitStatus(w, "DELETE /v1/api-keys/"+somethingElse, w.writer.Token, http.StatusNotFound)
	for _, body := range []string{readOnly, both} {
		c.call("POST /v1/api-keys", w.writer.Token, body).refused(t, 403, noReadAccess)
	}
	c.call("POST /v1/api-keys", w.reader.Token, readOnly).refused(t, 401, "API key does not have write access")
	c.call("POST /v1/api-keys", w.writer.Token, strings.Replace(writeOnly, "}", `, "labels": {"keys.squirrel.dev/manager": "true"}}`, 1)).
		refused(t, 422, `The field "labels" is unknown: a key has app_name, read_access, write_access and expires_at.`)

	created := payload[shown](t, c.call("POST /v1/api-keys", w.writer.Token, writeOnly))
	keys := w.keys()
	if len(keys) != 1 || string(keys[0].UID) != created.ID || len(keys[0].Labels) != 0 {
		t.Fatalf("the keys are %v", keys)
	}
	c.call("POST /v1/api-keys", created.Token, writeOnly).refused(t, 403, w.noManager(&keyclient.CreateResult{Key: &keys[0]}))

	w.label(w.issue("Manager", true, true), `"true"`)
	payload[shown](t, c.call("DELETE /v1/api-keys/"+string(w.reader.Key.UID), w.writer.Token)) // rights that it lacks it can end
	payload[shown](t, c.call("DELETE /v1/api-keys/"+created.ID, w.writer.Token))
}

func TestALabelledManagerWithBothAccessesCreatesAnyKey(t *testing.T) {
	w := newWorld(t)
	manager := w.issue("Manager", true, true)
	w.label(manager, `"true"`)
	c := w.startConsole(labelled)
	for _, body := range []string{readOnly, writeOnly, both} {
		payload[shown](t, c.call("POST /v1/api-keys", manager.Token, body))
	}
}

func TestInvariant5_AManagerWhoseLabelIsTakenAwayIsRefused(t *testing.T) {
	w := newWorld(t)
	w.label(w.writer, `"true"`)
	c := w.startConsole(labelled)
	end := "DELETE /v1/api-keys/" + somethingElse
	c.awaitStatus(w, end, w.writer.Token, http.StatusNotFound)
	w.stopController() // who has no part in this
	w.label(w.writer, "null")
	c.awaitStatus(w, end, w.writer.Token, http.StatusForbidden)
	c.call(end, w.writer.Token).refused(t, 403, w.noManager(w.writer))
}

// A client that holds bodies back could otherwise make itself a new key after the one that it has was ended.
func TestInvariant5_AKeyThatEndsBeforeTheBodyComesCreatesNone(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(w *world)
		status  int
		message func(w *world) string
	}{
		"the label is taken away": {
			func(w *world) { w.label(w.writer, "null") }, 403, func(w *world) string { return w.noManager(w.writer) },
		},
		"the key is deactivated": {
			func(w *world) {
				_, err := keyclient.Deactivate(w.Context(), w.env.Client, w.namespace, w.writer.Key.Name, w.writer.Key.UID)
				must(w.T, err)
			}, 401, func(*world) string { return keyRequired },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.label(w.writer, `"true"`)
			server := w.startConsole(labelled)
			const end = "DELETE /v1/api-keys/" + somethingElse
			server.awaitStatus(w, end, w.writer.Token, http.StatusNotFound)

			sendBody, answered := server.announce("POST /v1/api-keys", w.writer.Token)
			c.change(w)
			server.awaitStatus(w, end, w.writer.Token, c.status)
			sendBody(writeOnly)
			(<-answered).refused(t, c.status, c.message(w))
			if keys := w.keys(); len(keys) != 0 {
				t.Errorf("the keys are %v", keys)
			}
		})
	}
}

func TestInvariant4_AManagerThatTheCatalogDoesNotKnowYetIsNotRefused(t *testing.T) {
	w := newWorld(t)
	empty := api.NewKeyCache()
	must(t, empty.Replace(nil, ""))
	c := w.startConsole(labelled, func(o *api.Options) { o.KeyCache = empty })
	c.call("POST /v1/api-keys", w.writer.Token, writeOnly).
		refused(t, 503, "It is not known yet whether this key manages keys: try again.")
}

// As the documentation of the Squirrel backend has it.
func TestWhereWriteAccessManagesAKeyCreatesOnesWithAnyAccess(t *testing.T) {
	w := newWorld(t)
	w.label(w.writer, `"false"`)
	for _, body := range []string{readOnly, writeOnly, both} {
		payload[shown](t, w.call("POST /v1/api-keys", w.writer.Token, body))
	}
}

func TestTheBootstrapKeyOfTheProgramIsAManager(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), ".api_key")
	c := w.startProcess("--managers=labelled", "--plaintext", "--api-key-file="+file)
	content, err := os.ReadFile(file)
	must(t, err)
	payload[shown](t, c.insist("POST /v1/api-keys", strings.TrimSpace(string(content)), both))
	c.call("POST /v1/api-keys", w.writer.Token, writeOnly).refused(t, 403, w.noManager(w.writer))
}

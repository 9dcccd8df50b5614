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
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	writeOnly = `{"app_name": "Writing App", "read_access": false, "write_access": true}`
	both      = `{"app_name": "Reading App", "read_access": true, "write_access": true}`
)

func labelled(o *api.Options) { o.Managers = api.LabelledManage }

// label gives a key the label of managers with this value, or takes it away with null.
func (f *fixture) label(key *keyclient.CreateResult, value string) {
	f.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {"keys.squirrel.dev/manager": %s}}}`, value)
	framework.Must(f, f.Env.Client.Patch(f.Context(), key.Key, client.RawPatch("application/merge-patch+json", []byte(patch))))
}

// awaitStatus waits until a call is answered with this status.
func (c *console) awaitStatus(f *fixture, methodAndPath, token string, status int) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("%s is answered with %d", methodAndPath, status), func() bool {
		return c.call(methodAndPath, token).status == status
	})
}

// noManager is what a key that does not manage is told.
func (f *fixture) noManager(key *keyclient.CreateResult) string {
	return "This key may not create or end keys: use one that manages keys, or let it manage them: " +
		"kubectl label apikey " + key.Key.Name + " --namespace=" + f.Namespace + " keys.squirrel.dev/manager=true"
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
	transport := &http.Transport{ExpectContinueTimeout: framework.Timeout}
	c.t.Cleanup(transport.CloseIdleConnections)
	sender := &console{t: c.t, client: &http.Client{Transport: transport, Timeout: framework.Timeout}}
	go func() { answers <- sender.send(request) }()
	select {
	case <-waiting:
	case early := <-answers:
		c.t.Fatalf("without its body, the request is answered %d %s", early.status, early.body)
	}
	return func(body string) {
		_, err := io.WriteString(writer, body)
		framework.Must(c.t, errors.Join(err, writer.Close()))
	}, answers
}

func TestWhereManagersAreLabelledAnAppCannotCreateOrEndKeys(t *testing.T) {
	f := newFixture(t)
	app := f.issue("An App", true, true)
	c := f.startConsole(labelled)
	end := "DELETE /v1/api-keys/" + string(f.reader.Key.UID)
	for _, value := range []string{"null", `"false"`, `"True"`, `""`} {
		f.label(app, value)
		for _, body := range []string{readOnly, writeOnly, both, "no JSON"} {
			c.call("POST /api/v1/api-keys", app.Token, body).refused(t, 403, f.noManager(app))
		}
		c.call(end, app.Token).refused(t, 403, f.noManager(app))
		c.call("DELETE /v1/api-keys/"+string(app.Key.UID)+"?force=true", app.Token).refused(t, 403, f.noManager(app))
	}
	payload[[]shown](t, c.call("GET /v1/api-keys", app.Token))
	payload[int](t, c.call("GET /v1/api-keys/count", f.reader.Token))
	c.call(end, f.reader.Token).refused(t, 401, "API key does not have write access")
	c.call(end, "").refused(t, 401, keyRequired)
	if keys := f.keys(); len(keys) != 1 || keys[0].UID != app.Key.UID || !*keys[0].Spec.Active {
		t.Errorf("the keys are %v", keys)
	}
}

func TestALabelledManagerHandsOnNoRightThatItLacks(t *testing.T) {
	const noReadAccess = "This key has no read access, so it cannot create a key that has: create one with write access alone, or use a " +
		"key that has both."
	f := newFixture(t)
	c := f.startConsole(labelled)
	f.label(f.writer, `"true"`)
	f.label(f.reader, `"true"`)
	c.awaitStatus(f, "DELETE /v1/api-keys/"+somethingElse, f.writer.Token, http.StatusNotFound)
	for _, body := range []string{readOnly, both} {
		c.call("POST /v1/api-keys", f.writer.Token, body).refused(t, 403, noReadAccess)
	}
	c.call("POST /v1/api-keys", f.reader.Token, readOnly).refused(t, 401, "API key does not have write access")
	c.call("POST /v1/api-keys", f.writer.Token, strings.Replace(writeOnly, "}", `, "labels": {"keys.squirrel.dev/manager": "true"}}`, 1)).
		refused(t, 422, `The field "labels" is unknown: a key has app_name, read_access, write_access and expires_at.`)

	created := payload[shown](t, c.call("POST /v1/api-keys", f.writer.Token, writeOnly))
	keys := f.keys()
	if len(keys) != 1 || string(keys[0].UID) != created.ID || len(keys[0].Labels) != 0 {
		t.Fatalf("the keys are %v", keys)
	}
	c.call("POST /v1/api-keys", created.Token, writeOnly).refused(t, 403, f.noManager(&keyclient.CreateResult{Key: &keys[0]}))

	f.label(f.issue("Manager", true, true), `"true"`)
	payload[shown](t, c.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token)) // rights that it lacks it can end
	payload[shown](t, c.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token))
}

func TestALabelledManagerWithBothAccessesCreatesAnyKey(t *testing.T) {
	f := newFixture(t)
	manager := f.issue("Manager", true, true)
	f.label(manager, `"true"`)
	c := f.startConsole(labelled)
	for _, body := range []string{readOnly, writeOnly, both} {
		payload[shown](t, c.call("POST /v1/api-keys", manager.Token, body))
	}
}

func TestInvariant5_AManagerWhoseLabelIsTakenAwayIsRefused(t *testing.T) {
	f := newFixture(t)
	f.label(f.writer, `"true"`)
	c := f.startConsole(labelled)
	end := "DELETE /v1/api-keys/" + somethingElse
	c.awaitStatus(f, end, f.writer.Token, http.StatusNotFound)
	f.stopController() // who has no part in this
	f.label(f.writer, "null")
	c.awaitStatus(f, end, f.writer.Token, http.StatusForbidden)
	c.call(end, f.writer.Token).refused(t, 403, f.noManager(f.writer))
}

// A client that holds bodies back could otherwise make itself a new key after the one that it has was ended.
func TestInvariant5_AKeyThatEndsBeforeTheBodyComesCreatesNone(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(f *fixture)
		status  int
		message func(f *fixture) string
	}{
		"the label is taken away": {
			func(f *fixture) { f.label(f.writer, "null") }, 403, func(f *fixture) string { return f.noManager(f.writer) },
		},
		"the key is deactivated": {
			func(f *fixture) {
				_, err := keyclient.Deactivate(f.Context(), f.Env.Client, f.Namespace, f.writer.Key.Name, f.writer.Key.UID)
				framework.Must(f, err)
			}, 401, func(*fixture) string { return keyRequired },
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.label(f.writer, `"true"`)
			server := f.startConsole(labelled)
			const end = "DELETE /v1/api-keys/" + somethingElse
			server.awaitStatus(f, end, f.writer.Token, http.StatusNotFound)

			sendBody, answered := server.announce("POST /v1/api-keys", f.writer.Token)
			c.change(f)
			server.awaitStatus(f, end, f.writer.Token, c.status)
			sendBody(writeOnly)
			(<-answered).refused(t, c.status, c.message(f))
			if keys := f.keys(); len(keys) != 0 {
				t.Errorf("the keys are %v", keys)
			}
		})
	}
}

func TestInvariant4_AManagerThatTheCatalogDoesNotKnowYetIsNotRefused(t *testing.T) {
	f := newFixture(t)
	empty := api.NewKeyCache()
	framework.Must(t, empty.Replace(nil, ""))
	c := f.startConsole(labelled, func(o *api.Options) { o.KeyCache = empty })
	c.call("POST /v1/api-keys", f.writer.Token, writeOnly).
		refused(t, 503, "It is not known yet whether this key manages keys: try again.")
}

// As the documentation of the Squirrel backend has it.
func TestWhereWriteAccessManagesAKeyCreatesOnesWithAnyAccess(t *testing.T) {
	f := newFixture(t)
	f.label(f.writer, `"false"`)
	for _, body := range []string{readOnly, writeOnly, both} {
		payload[shown](t, f.call("POST /v1/api-keys", f.writer.Token, body))
	}
}

func TestTheBootstrapKeyOfTheProgramIsAManager(t *testing.T) {
	f := newFixture(t)
	file := filepath.Join(t.TempDir(), ".api_key")
	c := f.startProcess("--managers=labelled", "--plaintext", "--api-key-file="+file)
	content, err := os.ReadFile(file)
	framework.Must(t, err)
	payload[shown](t, c.insist("POST /v1/api-keys", strings.TrimSpace(string(content)), both))
	c.call("POST /v1/api-keys", f.writer.Token, writeOnly).refused(t, 403, f.noManager(f.writer))
}

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
	"squirrel.dev/apikey-operator/webhook/authn"
)

const (
	writeOnly = `{"app_name": "Writing App", "read_access": false, "write_access": true}`
	both      = `{"app_name": "Reading App", "read_access": true, "write_access": true}`
)

func labelled(o *api.Options) { o.Managers = api.LabelledManage }

// label sets the manager label of a key to this JSON value; null removes the label.
func (f *fixture) label(key *keyclient.CreateResult, value string) {
	f.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {"keys.squirrel.dev/manager": %s}}}`, value)
	framework.Must(f, f.Env.Client.Patch(f.Context(), key.Key, client.RawPatch("application/merge-patch+json", []byte(patch))))
}

// awaitStatus waits until the response to a request has this status.
func (c *console) awaitStatus(f *fixture, methodAndPath, token string, status int) {
	f.Helper()
	framework.Eventually(f, fmt.Sprintf("the status of %s is %d", methodAndPath, status), func() bool {
		return c.call(methodAndPath, token).status == status
	})
}

// notManager returns the error for a key that may not manage keys.
func (f *fixture) notManager(key *keyclient.CreateResult) string {
	return "This key may not create, change, rotate or deactivate keys: use a key that may, or allow it for this one: " +
		"kubectl label apikey " + key.Key.Name + " --namespace=" + f.Namespace + " keys.squirrel.dev/manager=true --overwrite"
}

// sendHeaders sends a request without its body, and returns when the console waits for the body.
func (c *console) sendHeaders(methodAndPath, token string) (sendBody func(body string), received <-chan response) {
	c.t.Helper()
	reader, writer := io.Pipe()
	waiting, responses := make(chan struct{}), make(chan response, 1)
	request := c.request(methodAndPath, token, "")
	request.Body, request.ContentLength, request.GetBody = reader, -1, nil
	request.Header.Set("Expect", "100-continue")
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(waiting) }}))
	transport := &http.Transport{ExpectContinueTimeout: framework.Timeout}
	c.t.Cleanup(transport.CloseIdleConnections)
	sender := &console{t: c.t, client: &http.Client{Transport: transport, Timeout: framework.Timeout}}
	go func() { responses <- sender.send(request) }()
	select {
	case <-waiting:
	case early := <-responses:
		c.t.Fatalf("the response arrives before the body is sent: %d %s", early.status, early.body)
	}
	return func(body string) {
		_, err := io.WriteString(writer, body)
		framework.Must(c.t, errors.Join(err, writer.Close()))
	}, responses
}

func TestLabelledManagers_OtherKeysCannotCreateOrDeactivateKeys(t *testing.T) {
	f := newFixture(t)
	app := f.issue("An App", true, true)
	c := f.startConsole(labelled)
	end := "DELETE /v1/api-keys/" + string(f.reader.Key.UID)
	for _, value := range []string{"null", `"false"`, `"True"`, `""`} {
		f.label(app, value)
		for _, body := range []string{readOnly, writeOnly, both, "no JSON"} {
			c.call("POST /api/v1/api-keys", app.Token, body).assertError(t, 403, f.notManager(app))
		}
		c.call(end, app.Token).assertError(t, 403, f.notManager(app))
		c.call("DELETE /v1/api-keys/"+string(app.Key.UID)+"?force=true", app.Token).assertError(t, 403, f.notManager(app))
	}
	payload[[]apiKey](t, c.call("GET /v1/api-keys", app.Token))
	payload[int](t, c.call("GET /v1/api-keys/count", f.reader.Token))
	c.call(end, f.reader.Token).assertError(t, 401, "API key does not have write access")
	c.call(end, "").assertError(t, 401, keyRequired)
	if keys := f.keys(); len(keys) != 1 || keys[0].UID != app.Key.UID || !*keys[0].Spec.Active {
		t.Errorf("the keys are %v", keys)
	}
}

func TestLabelledManagers_GrantNoAccessThatTheyLack(t *testing.T) {
	const noReadAccess = "This key has no read access, so it may not create a key with read access: create a key with write access only, " +
		"or use a key with both."
	f := newFixture(t)
	c := f.startConsole(labelled)
	f.label(f.writer, `"true"`)
	f.label(f.reader, `"true"`)
	c.awaitStatus(f, "DELETE /v1/api-keys/"+unknownID, f.writer.Token, http.StatusNotFound)
	for _, body := range []string{readOnly, both} {
		c.call("POST /v1/api-keys", f.writer.Token, body).assertError(t, 403, noReadAccess)
	}
	c.call("POST /v1/api-keys", f.reader.Token, readOnly).assertError(t, 401, "API key does not have write access")
	c.call("POST /v1/api-keys", f.writer.Token, strings.Replace(writeOnly, "}", `, "labels": {"keys.squirrel.dev/manager": "true"}}`, 1)).
		assertError(t, 422, `The field "labels" is unknown: a key has app_name, read_access, write_access and expires_at.`)

	created := payload[apiKey](t, c.call("POST /v1/api-keys", f.writer.Token, writeOnly))
	keys := f.keys()
	if len(keys) != 1 || string(keys[0].UID) != created.ID || len(keys[0].Labels) != 0 {
		t.Fatalf("the keys are %v", keys)
	}
	c.call("POST /v1/api-keys", created.Token, writeOnly).assertError(t, 403, f.notManager(&keyclient.CreateResult{Key: &keys[0]}))

	f.label(f.issue("Manager", true, true), `"true"`)
	payload[deactivatedKey](t, c.call("DELETE /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token)) // it may deactivate keys with more access
	payload[deactivatedKey](t, c.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token))
}

func TestLabelledManagers_WithBothAccessesCreateAnyKey(t *testing.T) {
	f := newFixture(t)
	manager := f.issue("Manager", true, true)
	f.label(manager, `"true"`)
	c := f.startConsole(labelled)
	for _, body := range []string{readOnly, writeOnly, both} {
		payload[apiKey](t, c.call("POST /v1/api-keys", manager.Token, body))
	}
}

func TestInvariant5_AManagerWhoseLabelIsRemovedIsRefused(t *testing.T) {
	f := newFixture(t)
	f.label(f.writer, `"true"`)
	c := f.startConsole(labelled)
	end := "DELETE /v1/api-keys/" + unknownID
	c.awaitStatus(f, end, f.writer.Token, http.StatusNotFound)
	f.stopController() // it is not needed for this
	f.label(f.writer, "null")
	c.awaitStatus(f, end, f.writer.Token, http.StatusForbidden)
	c.call(end, f.writer.Token).assertError(t, 403, f.notManager(f.writer))
}

// Otherwise a client could send the headers, and create a new key when its own one has been deactivated.
func TestInvariant5_AKeyThatEndsBeforeItsRequestBodyArrivesCreatesNoKey(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(f *fixture)
		status  int
		message func(f *fixture) string
	}{
		"the label is removed": {
			func(f *fixture) { f.label(f.writer, "null") }, 403, func(f *fixture) string { return f.notManager(f.writer) },
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
			const end = "DELETE /v1/api-keys/" + unknownID
			server.awaitStatus(f, end, f.writer.Token, http.StatusNotFound)

			sendBody, received := server.sendHeaders("POST /v1/api-keys", f.writer.Token)
			c.change(f)
			server.awaitStatus(f, end, f.writer.Token, c.status)
			sendBody(writeOnly)
			(<-received).assertError(t, c.status, c.message(f))
			if keys := f.keys(); len(keys) != 0 {
				t.Errorf("the keys are %v", keys)
			}
		})
	}
}

func TestInvariant5_AManagerThatIsDeletedAfterTheCheckGets401(t *testing.T) {
	f := newFixture(t)
	empty := api.NewKeyCache(authn.NewKeyring())
	c := f.startConsole(labelled, func(o *api.Options) { o.KeyCache = empty })
	c.call("POST /v1/api-keys", f.writer.Token, writeOnly).assertError(t, 401, keyRequired)
}

// The Squirrel backend documents this.
func TestWriteAccessManages_AKeyCreatesKeysWithAnyAccess(t *testing.T) {
	f := newFixture(t)
	f.label(f.writer, `"false"`)
	for _, body := range []string{readOnly, writeOnly, both} {
		payload[apiKey](t, f.call("POST /v1/api-keys", f.writer.Token, body))
	}
}

func TestBootstrapKey_IsAManager(t *testing.T) {
	f := newFixture(t)
	file := filepath.Join(t.TempDir(), ".api_key")
	c := f.startProcess("--managers=labelled", "--plaintext", "--api-key-file="+file)
	content, err := os.ReadFile(file)
	framework.Must(t, err)
	payload[apiKey](t, c.callUntilAvailable("POST /v1/api-keys", strings.TrimSpace(string(content)), both))
	c.call("POST /v1/api-keys", f.writer.Token, writeOnly).assertError(t, 403, f.notManager(f.writer))
}

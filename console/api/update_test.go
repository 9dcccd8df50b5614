// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	cannotChange = "The key has ended, which is final, and cannot be changed: create another key."
	ownKeyLoses  = "This is the key that authenticates the request: to take access or time from it, add force=true to the query."
)

func TestUpdate_IsInEffectAtOnce(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	path := "PATCH /api/v1/api-keys/" + created.ID
	expiresAt := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	later := expiresAt.Add(time.Hour)
	for _, step := range []struct {
		body        string
		read, write bool
		expiresAt   *time.Time
	}{
		{`{"write_access": true}`, true, true, nil},
		{`{"read_access": false}`, false, true, nil},
		{fmt.Sprintf(`{"readAccess": true, "expiresAt": %q}`, expiresAt.Format(time.RFC3339)), true, true, &expiresAt},
		{`{"write_access": false}`, true, false, &expiresAt},
		{fmt.Sprintf(`{"expires_at": %q}`, later.Format(time.RFC3339)), true, false, &later},
		{`{"expires_at": null}`, true, false, nil},
		{`{"expires_at": null}`, true, false, nil},
	} {
		got := payload[apiKey](t, f.call(path, f.writer.Token, step.body))
		want := created
		want.Token, want.UpdatedAt = "", got.UpdatedAt
		want.ReadAccess, want.WriteAccess, want.ExpiresAt = step.read, step.write, step.expiresAt
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.body, diff)
		}
		if status := f.call("GET /v1/api-keys/count", created.Token).status; (status == http.StatusOK) != step.read {
			t.Errorf("%s: the status of a read is %d", step.body, status)
		}
		if status := f.call("POST /v1/api-keys", created.Token, "").status; (status == http.StatusBadRequest) != step.write {
			t.Errorf("%s: the status of a write is %d", step.body, status)
		}
	}
	request := f.request(path, f.writer.Token, `{"write_access": true}`)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	payload[apiKey](t, f.send(request))
}

func TestUpdate_InvalidBodiesChangeNothing(t *testing.T) {
	const (
		notJSON     = `The body is not JSON in UTF-8: send an object such as {"write_access": true, "expires_at": null}.`
		notAnObject = `The body must be a JSON object, such as {"write_access": true, "expires_at": null}.`
		noFlag      = "read_access must be true or false, without quotes."
	)
	f := newFixture(t)
	created := f.create(readOnly)
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{``, 400, notJSON},
		{`[]`, 422, notAnObject},
		{`null`, 422, notAnObject},
		{`{}`, 422, "The body changes nothing: give read_access, write_access or expires_at."},
		{`{"read_access": null}`, 422, noFlag},
		{`{"read_access": "true"}`, 422, noFlag},
		{`{"read_access": false}`, 422, "A key needs read_access, write_access or both."},
		{`{"app_name": "Other", "write_access": true}`, 422, "app_name cannot be changed: create another key, and deactivate this one."},
		{`{"write_access": true, "writeAccess": true}`, 422, "The field write_access is given twice, in snake_case and in camelCase: give it once."},
		{`{"is_active": false}`, 422, `The field "is_active" is unknown: a key has app_name, read_access, write_access and expires_at.`},
		{`{"expires_at": "soon"}`, 422, "expires_at must be a date and time with a time zone (RFC 3339), such as 2027-06-01T00:00:00Z, or null."},
	} {
		f.call("PATCH /api/v1/api-keys/"+created.ID, f.writer.Token, c.body).assertError(t, c.status, c.want)
	}
	request := f.request("PATCH /v1/api-keys/"+created.ID, f.writer.Token, `{"write_access": true}`)
	request.Header.Set("Content-Type", "text/plain")
	f.send(request).assertError(t, 415, "The body must be JSON: set Content-Type to application/json.")
	f.call("PATCH /api/v1/api-keys/"+unknownID, f.writer.Token, `{"write_access": true}`).assertError(t, 404, keyNotFound)
	f.call("PATCH /api/v1/api-keys/"+created.ID, f.reader.Token, `{"write_access": true}`).assertError(t, 401, noWriteAccess)
	if keys := f.keys(); len(keys) != 1 || keys[0].Generation != 1 {
		t.Errorf("the keys are %v", keys)
	}
}

func TestUpdate_AnEndedKeyIsNotChanged(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	f.call("DELETE /v1/api-keys/"+created.ID, f.writer.Token)
	f.call("PATCH /v1/api-keys/"+created.ID, f.writer.Token, `{"write_access": true}`).assertError(t, 409, cannotChange)
	f.stopController() // it would record the expiry
	expired := f.apply("expired", v1alpha1.APIKeySpec{
		AppName: "Expired", ReadAccess: true, ExpiresAt: new(metav1.NewTime(time.Now().Add(-time.Minute))),
	}, nil)
	framework.Eventually(f, "the console lists the key", func() bool { return f.count("") == 4 })
	f.call("PATCH /v1/api-keys/"+string(expired.UID), f.writer.Token, `{"expires_at": null}`).assertError(t, 409, cannotChange)
}

func TestUpdate_TheCallersKeyLosesAccessAndTimeOnlyWithForce(t *testing.T) {
	f := newFixture(t)
	self := f.issue("Self", true, true)
	path := "PATCH /api/v1/api-keys/" + string(self.Key.UID)
	soon, later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339), time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339)
	for _, body := range []string{`{"read_access": false}`, `{"write_access": false}`, `{"expires_at": "` + later + `"}`} {
		f.call(path, self.Token, body).assertError(t, 409, ownKeyLoses)
		f.call(path+"?force=false", self.Token, body).assertError(t, 409, ownKeyLoses)
	}
	for _, body := range []string{`{"read_access": true}`, `{"expires_at": null}`} { // nothing is lost
		payload[apiKey](t, f.call(path, self.Token, body))
	}
	payload[apiKey](t, f.call(path+"?force=true", self.Token, `{"expires_at": "`+soon+`"}`))
	payload[apiKey](t, f.call(path, self.Token, `{"expires_at": "`+later+`"}`))
	payload[apiKey](t, f.call(path+"?force=true", self.Token, `{"write_access": false}`))
	f.call(path, self.Token, `{"read_access": true}`).assertError(t, 401, noWriteAccess)
}

func TestLabelledManagers_GiveOtherKeysNoAccessThatTheyLack(t *testing.T) {
	const noRead = "This key has no read access, so it may neither give another key read access nor let one that has it expire later: " +
		"use a key with both."
	f := newFixture(t)
	f.label(f.writer, `"true"`)
	manager := f.issue("Manager", true, true)
	f.label(manager, `"true"`)
	c := f.startConsole(labelled)
	reading, writing := f.issue("Reading", true, false), f.issue("Writing", false, true)
	c.awaitStatus(f, "DELETE /v1/api-keys/"+unknownID, f.writer.Token, http.StatusNotFound)
	c.awaitStatus(f, "DELETE /v1/api-keys/"+unknownID, manager.Token, http.StatusNotFound)
	c.awaitStatus(f, "GET /v1/api-keys/self", writing.Token, http.StatusOK)
	read, write := "PATCH /v1/api-keys/"+string(reading.Key.UID), "PATCH /v1/api-keys/"+string(writing.Key.UID)
	soon, later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339), time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339)

	c.call(write, f.writer.Token, `{"read_access": true}`).assertError(t, 403, noRead)
	payload[apiKey](t, c.call(read, f.writer.Token, `{"write_access": true, "expires_at": "`+soon+`"}`)) // it has write access, and takes time
	c.call(read, f.writer.Token, `{"expires_at": "`+later+`"}`).assertError(t, 403, noRead)
	c.call(read, f.writer.Token, `{"expires_at": null}`).assertError(t, 403, noRead)
	payload[apiKey](t, c.call(read, f.writer.Token, `{"read_access": false, "expires_at": null}`))
	payload[apiKey](t, c.call(read, manager.Token, `{"read_access": true}`))
	payload[apiKey](t, f.call(write, f.writer.Token, `{"read_access": true}`)) // by a console where each writer manages
	c.call(write, writing.Token, `{"read_access": true}`).assertError(t, 403, f.notManager(writing))
}

// The key of a body that arrives late may have ended in between.
func TestInvariant5_AKeyThatEndsBeforeItsRequestBodyArrivesChangesNoKey(t *testing.T) {
	f := newFixture(t)
	f.label(f.writer, `"true"`)
	server := f.startConsole(labelled)
	const end = "DELETE /v1/api-keys/" + unknownID
	server.awaitStatus(f, end, f.writer.Token, http.StatusNotFound)
	sendBody, received := server.sendHeaders("PATCH /v1/api-keys/"+string(f.reader.Key.UID), f.writer.Token)
	f.label(f.writer, "null")
	server.awaitStatus(f, end, f.writer.Token, http.StatusForbidden)
	sendBody(`{"write_access": true}`)
	(<-received).assertError(t, 403, f.notManager(f.writer))
}

// A controller that writes the status, or a tool that labels the key, at the same time does not make the change fail.
func TestUpdate_ConcurrentChangesAreAllKept(t *testing.T) {
	f := newFixture(t)
	created := f.create(readOnly)
	object := f.keys()[0]
	for i := range 10 {
		labelled := make(chan error, 1)
		go func() {
			patch := fmt.Sprintf(`{"metadata": {"labels": {"step": "%d"}}}`, i)
			labelled <- f.Env.Client.Patch(f.Context(), object.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(patch)))
		}()
		payload[apiKey](t, f.call("PATCH /v1/api-keys/"+created.ID, f.writer.Token, fmt.Sprintf(`{"write_access": %t}`, i%2 == 0)))
		framework.Must(t, <-labelled)
	}
	if key := f.keys()[0]; key.Labels["step"] != "9" || key.Spec.WriteAccess {
		t.Errorf("the key is %v %v", key.Labels, key.Spec)
	}
}

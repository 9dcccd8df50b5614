// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// squirrelCall is a call of a client of the Squirrel backend, in the order of its tests of API keys. {A} in a path is the ID of the key
// whose app name is A; {self} is the ID of the caller's key.
type squirrelCall struct {
	request, body string
	status        int
	// payload has fields of the payload, in any of their names. A list has a field for each app name: whether the key is active.
	payload map[string]any
	message string // part of errorMessage
}

// The calls and their results are those of the tests of the Squirrel backend while its responses had envelopes. The clients send and read
// names in camelCase; the documentation of that time has those in snake_case.
var squirrelCalls = []squirrelCall{
	{"GET /v1/api-keys", "", 200, map[string]any{}, ""},
	{"GET /v1/api-keys/count", "", 200, map[string]any{"": 0.0}, ""},
	{"POST /v1/api-keys", `{"appName": "A", "readAccess": true, "writeAccess": false}`, 200,
		map[string]any{"appName": "A", "app_name": "A", "isActive": true, "is_active": true, "readAccess": true, "writeAccess": false}, ""},
	{"POST /v1/api-keys", `{"appName": "B", "readAccess": true, "writeAccess": true}`, 200,
		map[string]any{"appName": "B", "read_access": true, "write_access": true}, ""},
	{"POST /v1/api-keys/", `{"app_name": "C", "read_access": false, "write_access": true}`, 200,
		map[string]any{"app_name": "C", "readAccess": false, "writeAccess": true}, ""},
	{"POST /v1/api-keys", `{"appName": "A", "readAccess": false, "writeAccess": false}`, 409, nil, `"A"`},
	{"POST /v1/api-keys", `{"readAccess": true}`, 422, nil, "app_name"},
	{"POST /v1/api-keys", `{"appName": "D", "readAccess": "perhaps", "writeAccess": true}`, 422, nil, "read_access"},
	{"POST /v1/api-keys", ``, 400, nil, "JSON"},
	{"GET /v1/api-keys", "", 200, map[string]any{"A": true, "B": true, "C": true}, ""},
	{"GET /v1/api-keys/", "", 200, map[string]any{"A": true, "B": true, "C": true}, ""},
	{"GET /v1/api-keys/count", "", 200, map[string]any{"": 3.0}, ""},
	{"GET /v1/api-keys/count/?active_only=true", "", 200, map[string]any{"": 3.0}, ""},
	{"DELETE /v1/api-keys/{B}", "", 200, map[string]any{"id": "{B}", "isActive": false, "is_active": false, "appName": "B"}, ""},
	{"DELETE /v1/api-keys/{B}", "", 409, nil, "already inactive"},
	{"DELETE /v1/api-keys/{B}?force=true", "", 409, nil, "already inactive"},
	{"GET /v1/api-keys?active_only=true", "", 200, map[string]any{"A": true, "C": true}, ""},
	{"GET /v1/api-keys?active_only=True&page=1", "", 200, map[string]any{"A": true, "C": true}, ""},
	{"GET /v1/api-keys?active_only=false", "", 200, map[string]any{"A": true, "B": false, "C": true}, ""},
	{"GET /v1/api-keys?active_only=perhaps", "", 422, nil, "active_only"},
	{"GET /v1/api-keys/count?active_only=true", "", 200, map[string]any{"": 2.0}, ""},
	{"GET /v1/api-keys/count", "", 200, map[string]any{"": 3.0}, ""},
	{"DELETE /v1/api-keys/" + unknownID, "", 404, nil, "ID"},
	{"DELETE /v1/api-keys/{self}", "", 409, nil, "the key that authenticates the request"},
	{"POST /v1/api-keys", `{"appName": "B", "readAccess": true, "writeAccess": false}`, 200, map[string]any{"appName": "B", "isActive": true}, ""},
	{"DELETE /v1/api-keys/{A}/?force=false", "", 200, map[string]any{"isActive": false}, ""},
	{"DELETE /v1/api-keys/{self}?force=true", "", 200, map[string]any{"id": "{self}", "isActive": false}, ""},
	{"GET /v1/api-keys", "", 401, nil, "A valid API key is required"},
}

func TestSquirrelClients_GetTheStatusTheEnvelopeAndTheNamesThatTheyExpect(t *testing.T) {
	f := newFixture(t)
	self := f.issue("Caller", true, true)
	f.deactivate(string(f.reader.Key.UID))
	ids := map[string]string{"self": string(self.Key.UID)}
	others := []string{"Reader", "Writer", "Caller"}
	for _, c := range squirrelCalls {
		name := c.request + " " + c.body
		replaced := []string{}
		for app, id := range ids {
			replaced = append(replaced, "{"+app+"}", id)
		}
		inPath := strings.NewReplacer(replaced...)
		var body []string
		if strings.HasPrefix(c.request, "POST") {
			body = []string{c.body}
		}
		got := f.call(inPath.Replace(c.request), self.Token, body...)
		var envelope map[string]any
		if err := json.Unmarshal([]byte(got.body), &envelope); err != nil || len(envelope) != 3 || got.status != c.status {
			t.Fatalf("%s: the response is %d %s, want %d", name, got.status, got.body, c.status)
		}
		if c.status != http.StatusOK {
			message, _ := envelope["errorMessage"].(string)
			if envelope["errorCode"] != float64(c.status) || envelope["payload"] != nil || !strings.Contains(message, c.message) {
				t.Errorf("%s: the response is %s, want %s", name, got.body, c.message)
			}
			continue
		}
		if envelope["errorCode"] != 0.0 || envelope["errorMessage"] != nil {
			t.Errorf("%s: the response is %s", name, got.body)
		}
		fields := map[string]any{}
		switch p := envelope["payload"].(type) {
		case []any:
			for _, item := range p {
				key := item.(map[string]any)
				fields[key["appName"].(string)] = key["isActive"]
			}
			for _, app := range others {
				delete(fields, app)
			}
			if len(fields) != len(c.payload) {
				t.Errorf("%s: the keys are %v, want %v", name, fields, c.payload)
			}
		case float64:
			active := 2.0 // Writer and Caller
			if !strings.Contains(c.request, "active_only") {
				active++
			}
			fields[""] = p - active
		case map[string]any:
			fields = p
			for _, required := range []string{"id", "createdAt", "updatedAt", "created_at", "updated_at"} {
				if text, _ := fields[required].(string); text == "" {
					t.Errorf("%s: %s is missing in %s", name, required, got.body)
				}
			}
			if strings.HasPrefix(c.request, "POST") != (fields["token"] != nil) {
				t.Errorf("%s: token is %v", name, fields["token"])
			}
			ids[fmt.Sprint(fields["appName"])] = fmt.Sprint(fields["id"])
		}
		for field, want := range c.payload {
			if text, ok := want.(string); ok {
				want = inPath.Replace(text)
			}
			if fields[field] != want {
				t.Errorf("%s: %q is %v, want %v", name, field, fields[field], want)
			}
		}
		if strings.Contains(got.body, "Hash") || strings.Contains(got.body, "_hash") {
			t.Errorf("%s: the response contains a hash: %s", name, got.body)
		}
	}
}

// The calls and their results are those of the tests of SecuScan. Its key is the bootstrap key.
func TestSecuScanClients_GetTheStatusThatTheyExpect(t *testing.T) {
	f := newFixture(t)
	key := f.issue("Operator", true, true).Token
	for _, c := range []struct {
		path   string
		header [2]string
		status int
	}{
		{"/", [2]string{}, 200},
		{"/api/v1/health", [2]string{}, 200},
		{"/api/v1/health", [2]string{"X-Api-Key", "wrong-key"}, 200},
		{"/api/v1/api-keys", [2]string{}, 401},
		{"/api/v1/api-keys", [2]string{"X-Api-Key", "wrong-key"}, 401},
		{"/api/v1/api-keys", [2]string{"X-Api-Key", key}, 200},
		{"/api/v1/api-keys", [2]string{"x-api-key", key}, 200},
		{"/api/v1/api-keys", [2]string{"Authorization", "Bearer " + key}, 200},
		{"/api/v1/api-keys", [2]string{"Authorization", "bearer " + key}, 200},
		{"/api/v1/api-keys", [2]string{"Authorization", "Bearer bad"}, 401},
		{"/api/v1/api-keys", [2]string{"Authorization", "Basic " + key}, 401},
	} {
		request := f.request("GET "+c.path, "")
		if c.header[0] != "" {
			request.Header.Set(c.header[0], c.header[1])
		}
		got := f.send(request)
		challenge := got.header.Get("WWW-Authenticate")
		if got.status != c.status || (c.status == 401) != strings.HasPrefix(challenge, "Bearer") {
			t.Errorf("GET %s with %v: the response is %d (%s), want %d", c.path, c.header[0], got.status, challenge, c.status)
		}
	}
}

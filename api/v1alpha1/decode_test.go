// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// stored is an APIKey with every field that is decoded.
const stored = `{"apiVersion": "keys.squirrel.dev/v1alpha1", "kind": "APIKey", "metadata": {"namespace": "shop", "name": "frontend",
	"uid": "1234", "resourceVersion": "5", "generation": 1, "creationTimestamp": "2027-01-01T00:00:00Z",
	"deletionTimestamp": "2027-02-01T00:00:00Z", "labels": {"tier": "web"}, "annotations": {"team": "shop"}, "finalizers": ["kept"],
	"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "5678", "controller": true}],
	"managedFields": [{"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": "2027-01-01T00:00:00Z", "fieldsType": "FieldsV1",
	"fieldsV1": {"f:spec": {}}}]}, "spec": {"appName": "App", "readAccess": true, "writeAccess": true, "active": true,
	"expiresAt": "2027-06-01T00:00:00Z", "secret": {"name": "other", "key": "key", "ttl": "24h"}, "tokenHash": "sha256:", "tokenHint": "sq_"},
	"status": {"observedGeneration": 1, "secretName": "other", "deactivatedAt": "2027-06-01T00:00:00Z",
	"tokens": [{"hash": "sha256:a", "hint": "a", "notBefore": "2027-01-01T00:00:00Z"},
	{"hash": "sha256:b", "hint": "b", "claimedAt": "2027-01-01T00:00:00Z", "notBefore": "2027-01-01T00:00:00Z", "notAfter": "2027-06-01T00:00:00Z"}],
	"conditions": [{"type": "Ready", "status": "True", "reason": "Issued", "message": "", "observedGeneration": 1,
	"lastTransitionTime": "2027-01-01T00:00:00Z"}]}}`

// eachValue calls a function for each value in a JSON value, with the value's path and a function that replaces it.
func eachValue(value any, path string, do func(path string, set func(any))) {
	switch value := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			inner := name
			if path != "" {
				inner = path + "." + name
			}
			before := value[name]
			do(inner, func(replacement any) { value[name] = replacement })
			value[name] = before
			eachValue(value[name], inner, do)
		}
	case []any:
		for i, element := range value {
			inner := fmt.Sprintf("%s[%d]", path, i)
			do(inner, func(replacement any) { value[i] = replacement })
			value[i] = element
			eachValue(element, inner, do)
		}
	}
}

func decode(t *testing.T, data []byte) *v1alpha1.APIKey {
	t.Helper()
	key := &v1alpha1.APIKey{}
	if err := json.Unmarshal(data, key); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return key
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestUnmarshalJSON_SkipsOnlyUnreadableFields(t *testing.T) {
	if key := decode(t, []byte(stored)); key.Unreadable != nil {
		t.Fatalf("a valid key has the unreadable fields %v", key.Unreadable)
	}
	var object any
	if err := json.Unmarshal([]byte(stored), &object); err != nil {
		t.Fatal(err)
	}
	unreadableValues := 0
	eachValue(object, "", func(path string, set func(any)) {
		set(nil) // decoded like an absent value
		absent := decode(t, encode(t, object))
		for _, value := range []any{true, 7.5, "", "text", []any{7.5}, map[string]any{"field": 7.5}} {
			set(value)
			key := decode(t, encode(t, object))
			switch unreadable := key.Unreadable; {
			case unreadable == nil: // the value has the type of the field
				continue
			case !key.IsUnreadable(path):
				t.Errorf("with %v at %s, %v is unreadable", value, path, unreadable)
			case slices.Equal(unreadable, []string{path}) && !strings.HasSuffix(path, ".notAfter"):
				if diff := cmp.Diff(string(encode(t, absent)), string(encode(t, key))); diff != "" {
					t.Errorf("with %v at %s, other fields are missing too (-want +got):\n%s", value, path, diff)
				}
			}
			unreadableValues++
		}
	})
	if unreadableValues < 200 {
		t.Errorf("only %d values were unreadable, want at least 200", unreadableValues)
	}
}

func TestInvariant7_AnUnreadableFieldDoesNotMakeAKeyActive(t *testing.T) {
	const long, day = "2027-01-01T00:00:00Z", "2027-06-01T00:00:00Z"
	now := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	for fields, want := range map[string]struct {
		state   apikey.State
		retired bool
		issued  bool
	}{
		`"spec": {"expiresAt": "` + day + `"}`:                            {apikey.StateActive, false, true},
		`"spec": {"active": "true"}`:                                      {apikey.StateUnreadable, false, true},
		`"spec": {"active": 0, "expiresAt": "` + long + `"}`:              {apikey.StateUnreadable, false, true},
		`"spec": {"active": false, "expiresAt": 0}`:                       {apikey.StateDeactivated, true, true},
		`"spec": {"expiresAt": "` + day + `Z"}`:                           {apikey.StateUnreadable, false, true},
		`"spec": {"secret": {"ttl": "a while"}}`:                          {apikey.StateActive, false, true},
		`"spec": []`:                                                      {apikey.StateUnreadable, false, true},
		`"metadata": {"deletionTimestamp": true}`:                         {apikey.StateUnreadable, false, true},
		`"metadata": "none"`:                                              {apikey.StateUnreadable, false, true},
		`"status": {"deactivatedAt": 1}`:                                  {apikey.StateUnreadable, false, false},
		`"status": {"deactivatedAt": "` + long + `", "tokens": "none"}`:   {apikey.StateExpired, true, false},
		`"status": {"tokens": [{"notBefore": "` + long + `", "hash":1}]}`: {apikey.StateActive, false, true},
		`"status": {"tokens": [{"notBefore": "then"}]}`:                   {apikey.StateActive, false, false},
		`"status": {"tokens": ["", {"notBefore": "` + long + `"}]}`:       {apikey.StateActive, false, true}, // authenticators accept the second
		`"status": "none"`:                                                {apikey.StateUnreadable, false, false},
	} {
		key := decode(t, []byte(`{"status": {"tokens": [{"notBefore": "`+long+`"}]}, `+fields+`}`))
		if state := apikey.StateOf(key, now); state != want.state || apikey.IsRetired(key) != want.retired || apikey.IsIssued(key) != want.issued {
			t.Errorf("%s: the key is %s, retired %t, issued %t", fields, state, apikey.IsRetired(key), apikey.IsIssued(key))
		}
	}
	key := decode(t, []byte(`{"status": {"tokens": [{"notAfter": "never"}, {"notAfter": null}, {}]}}`))
	if tokens := key.Status.Tokens; tokens[0].NotAfter == nil || tokens[0].NotAfter.After(now) || tokens[1].NotAfter != nil || tokens[2].NotAfter != nil {
		t.Errorf("the tokens are %v", tokens)
	}
}

func TestUnmarshalJSON_RejectsWhatIsNotAnObject(t *testing.T) {
	for data, want := range map[string]string{
		"7":    "an APIKey must be a JSON object: json: cannot unmarshal number into Go value of type map[string]json.RawMessage",
		`[{}]`: "an APIKey must be a JSON object: json: cannot unmarshal array into Go value of type map[string]json.RawMessage",
	} {
		if err := new(v1alpha1.APIKey).UnmarshalJSON([]byte(data)); err == nil || err.Error() != want {
			t.Errorf("%s: the error is %v, want %s", data, err, want)
		}
	}
}

// FuzzUnmarshalJSON decodes any JSON object, and then what it decoded. The second time, all fields must be readable.
func FuzzUnmarshalJSON(f *testing.F) {
	f.Add([]byte(stored))
	f.Add([]byte(`{"metadata": [], "spec": {"secret": {"ttl": 7}}, "status": {"tokens": [{"notAfter": {}}, [], null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if object := (map[string]any)(nil); json.Unmarshal(data, &object) != nil || object == nil {
			return
		}
		key := decode(t, data)
		again := decode(t, encode(t, key))
		if again.Unreadable != nil {
			t.Errorf("decoded again, %v is unreadable", again.Unreadable)
		}
	})
}

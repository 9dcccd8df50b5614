// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

// ChangeStored changes an APIKey in etcd itself, past the schema and all that else the API server checks.
func (e *Env) ChangeStored(t testing.TB, namespace, name string, change func(object map[string]any)) {
	t.Helper()
	key := fmt.Appendf(nil, "/registry/%s/apikeys/%s/%s", v1alpha1.GroupVersion.Group, namespace, name)
	var found struct {
		KVs []struct {
			Value       []byte `json:"value"`
			ModRevision string `json:"mod_revision"`
		} `json:"kvs"`
	}
	e.etcd(t, "range", map[string]any{"key": key}, &found)
	if len(found.KVs) != 1 {
		t.Fatalf("etcd has %d objects at %s", len(found.KVs), key)
	}
	object := map[string]any{}
	framework.Must(t, json.Unmarshal(found.KVs[0].Value, &object))
	change(object)
	value, err := json.Marshal(object)
	framework.Must(t, err)
	var written struct {
		Succeeded bool `json:"succeeded"`
	}
	e.etcd(t, "txn", map[string]any{
		"compare": []any{map[string]any{"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": found.KVs[0].ModRevision}},
		"success": []any{map[string]any{"request_put": map[string]any{"key": key, "value": value}}},
	}, &written)
	if !written.Succeeded { // a controller was faster
		e.ChangeStored(t, namespace, name, change)
	}
}

// etcd calls the JSON gateway of etcd's API.
func (e *Env) etcd(t testing.TB, call string, request, response any) {
	t.Helper()
	body, err := json.Marshal(request)
	framework.Must(t, err)
	posted, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.EtcdURL()+"/v3/kv/"+call, bytes.NewReader(body))
	framework.Must(t, err)
	answer, err := http.DefaultClient.Do(posted)
	framework.Must(t, err)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("etcd answers %s to %s", answer.Status, call)
	}
	framework.Must(t, json.NewDecoder(answer.Body).Decode(response))
}

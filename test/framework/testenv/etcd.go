// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

const concurrentEtcdWrites = 10

// etcdClient keeps a connection for each concurrent write.
var etcdClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: concurrentEtcdWrites}}

// EtcdKey returns the key in etcd under which the API server stores an APIKey.
func EtcdKey(namespace, name string) string {
	return "/registry/" + v1alpha1.GroupVersion.Group + "/apikeys/" + namespace + "/" + name
}

// etcdValue is the value of a key in etcd.
type etcdValue struct {
	Value       []byte `json:"value"`
	ModRevision string `json:"mod_revision"`
}

// ReadEtcd returns the value of a key in etcd.
func (e *Env) ReadEtcd(t testing.TB, key string) string {
	t.Helper()
	return string(e.readEtcd(t, key).Value)
}

// WriteEtcd writes keys and values to etcd, which is much faster than the API server, but checks nothing.
func (e *Env) WriteEtcd(t testing.TB, values iter.Seq2[string, string]) {
	t.Helper()
	writes, ctx := errgroup.WithContext(t.Context())
	writes.SetLimit(concurrentEtcdWrites)
	for key, value := range values {
		writes.Go(func() error {
			return e.callEtcd(ctx, "put", map[string]any{"key": []byte(key), "value": []byte(value)}, &struct{}{})
		})
	}
	framework.Must(t, writes.Wait())
}

// UpdateInEtcd changes an APIKey in etcd, so that the API server does not validate the change.
func (e *Env) UpdateInEtcd(t testing.TB, namespace, name string, change func(object map[string]any)) {
	t.Helper()
	key := EtcdKey(namespace, name)
	found := e.readEtcd(t, key)
	object := map[string]any{}
	framework.Must(t, json.Unmarshal(found.Value, &object))
	change(object)
	value, err := json.Marshal(object)
	framework.Must(t, err)
	var written struct {
		Succeeded bool `json:"succeeded"`
	}
	framework.Must(t, e.callEtcd(t.Context(), "txn", map[string]any{
		"compare": []any{map[string]any{"key": []byte(key), "target": "MOD", "result": "EQUAL", "mod_revision": found.ModRevision}},
		"success": []any{map[string]any{"request_put": map[string]any{"key": []byte(key), "value": value}}},
	}, &written))
	if !written.Succeeded { // another client has written the key since
		e.UpdateInEtcd(t, namespace, name, change)
	}
}

func (e *Env) readEtcd(t testing.TB, key string) etcdValue {
	t.Helper()
	var found struct {
		KVs []etcdValue `json:"kvs"`
	}
	framework.Must(t, e.callEtcd(t.Context(), "range", map[string]any{"key": []byte(key)}, &found))
	if len(found.KVs) != 1 {
		t.Fatalf("etcd has %d values of %s, want 1", len(found.KVs), key)
	}
	return found.KVs[0]
}

// callEtcd calls a method of etcd's JSON gateway.
func (e *Env) callEtcd(ctx context.Context, method string, parameters, result any) error {
	body, err := json.Marshal(parameters)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.EtcdURL()+"/v3/kv/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := etcdClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd responds %s to %s", response.Status, method)
	}
	return json.NewDecoder(response.Body).Decode(result)
}

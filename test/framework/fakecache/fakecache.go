// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fakecache fills the cache of a controller with so many APIKeys that creating them in an API server would take too long.
package fakecache

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

// initialEventsEnd is the bookmark that ends the initial events of a watch.
const initialEventsEnd = `{"type":"BOOKMARK","object":{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey","metadata":{
	"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}},"spec":{"appName":""}}}`

// New returns a synced and indexed cache that holds these keys. It runs until the test ends.
func New(t testing.TB, options cache.Options, keys []v1alpha1.APIKey) cache.Cache {
	t.Helper()
	scheme := runtime.NewScheme()
	framework.Must(t, v1alpha1.AddToScheme(scheme))
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.GroupVersion.WithKind("APIKey"), meta.RESTScopeNamespace)
	options.Scheme, options.Mapper = scheme, mapper
	filled, err := cache.New(&rest.Config{Host: serveWatch(t, keys)}, options)
	framework.Must(t, err)
	framework.Must(t, apikey.Index(t.Context(), filled))
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- filled.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		framework.Must(t, <-stopped)
	})
	if !filled.WaitForCacheSync(t.Context()) {
		t.Fatal("the cache did not sync")
	}
	return filled
}

// serveWatch starts a server whose watch sends these keys and no later event, and returns its URL.
func serveWatch(t testing.TB, keys []v1alpha1.APIKey) (url string) {
	t.Helper()
	kind := metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "APIKey"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := range keys {
			keys[i].TypeMeta = kind
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "ADDED", "object": &keys[i]}) // fails only when the test has ended
		}
		_, _ = io.WriteString(w, initialEventsEnd)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

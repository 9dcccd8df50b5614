// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fakecache fills the cache of a controller with more APIKeys than an API server could be told of in a test.
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

// endOfFirstEvents is what a watch that begins with all objects says when it has told them.
const endOfFirstEvents = `{"type":"BOOKMARK","object":{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey","metadata":{
	"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}},"spec":{"appName":""}}}`

// Cache returns a cache of these keys, as a controller has it that is told of them by a watch. It is indexed, and runs until the test
// ends.
func Cache(t testing.TB, options cache.Options, keys []v1alpha1.APIKey) cache.Cache {
	t.Helper()
	scheme := runtime.NewScheme()
	framework.Must(t, v1alpha1.AddToScheme(scheme))
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.GroupVersion.WithKind("APIKey"), meta.RESTScopeNamespace)
	options.Scheme, options.Mapper = scheme, mapper
	filled, err := cache.New(&rest.Config{Host: serve(t, keys)}, options)
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
		t.Fatal("the cache was not filled")
	}
	return filled
}

// serve answers a watch with these keys and nothing after them, and returns the URL of the server that does.
func serve(t testing.TB, keys []v1alpha1.APIKey) (url string) {
	t.Helper()
	kind := metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "APIKey"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := range keys {
			keys[i].TypeMeta = kind
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "ADDED", "object": &keys[i]}) // nobody reads it when the test is over
		}
		_, _ = io.WriteString(w, endOfFirstEvents)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

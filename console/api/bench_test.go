// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// BenchmarkReading measures the calls that read, without HTTP, over 100 000 keys.
func BenchmarkReading(b *testing.B) {
	const many = 100_000
	objects := make([]any, many)
	for i := range objects {
		objects[i] = &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("app-%d", i), UID: types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i)),
				CreationTimestamp: metav1.NewTime(time.Unix(int64(i/7), 0)),
			},
			Spec: v1alpha1.APIKeySpec{AppName: fmt.Sprintf("App %d", i), ReadAccess: true},
		}
	}
	api := &API{Options: Options{KeyCache: NewKeyCache()}}
	if err := api.KeyCache.Replace(objects, ""); err != nil {
		b.Fatal(err)
	}
	middle := position{createdAt: many / 14, id: "f"}
	for name, path := range map[string]string{
		"page":   "/v1/api-keys?limit=100&continue=" + middle.String(),
		"all":    "/v1/api-keys",
		"count":  "/v1/api-keys/count",
		"active": "/v1/api-keys/count?active_only=true",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := &request{Request: httptest.NewRequestWithContext(b.Context(), "GET", path, nil)}
			r.route = findRoute(r.Method, r.URL.Path)
			for b.Loop() {
				answer := r.call.answer(api, nil, r)
				if answer.Status != 200 {
					b.Fatalf("%d %s", answer.Status, answer.Body)
				}
				answer.Write(nobody{})
			}
		})
	}
}

// nobody is whom an answer is written to.
type nobody struct{}

func (nobody) Header() http.Header               { return http.Header{} }
func (nobody) WriteHeader(int)                   {}
func (nobody) Write(content []byte) (int, error) { return len(content), nil }

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// BenchmarkReads measures the routes that read 100 000 keys, without HTTP.
func BenchmarkReads(b *testing.B) {
	const many = 100_000
	objects := make([]any, many)
	for i := range objects {
		objects[i] = &v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("app-%d", i), UID: types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i)),
				CreationTimestamp: metav1.NewTime(time.Unix(int64(i/7), 0)),
			},
			Spec: v1alpha1.APIKeySpec{AppName: fmt.Sprintf("App %d", i), ReadAccess: true},
			Status: v1alpha1.APIKeyStatus{
				Tokens: []v1alpha1.TokenRecord{{Hash: token.Hash(strconv.Itoa(i)), Hint: "sq_KnIr", NotBefore: new(metav1.Now())}},
				Conditions: []metav1.Condition{{
					Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIssued,
					Message: "The imported token is accepted.",
				}},
			},
		}
	}
	keys := NewKeyCache(authn.NewKeyring())
	framework.Must(b, keys.Replace(objects, ""))
	h := NewHandler(Options{KeyCache: keys})
	middle := keyclient.Position{CreatedAt: many / 14, Name: "f"}
	for name, c := range map[string]struct {
		query  string
		handle func(*Handler, http.ResponseWriter, *request) *envelope.Response
	}{
		"page":   {"/?limit=100&continue=" + formatPosition(middle), (*Handler).list},
		"all":    {"/", (*Handler).list},
		"count":  {"/", (*Handler).count},
		"active": {"/?active_only=true", (*Handler).count},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := &request{Request: httptest.NewRequestWithContext(b.Context(), "GET", c.query, nil)}
			for b.Loop() {
				response := c.handle(h, nil, r)
				if response.Status != 200 {
					b.Fatalf("%d %s", response.Status, response.Body)
				}
				response.Write(discard{})
			}
		})
	}
}

// discard is a ResponseWriter that drops the response.
type discard struct{}

func (discard) Header() http.Header               { return http.Header{} }
func (discard) WriteHeader(int)                   {}
func (discard) Write(content []byte) (int, error) { return len(content), nil }

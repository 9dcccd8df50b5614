// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
)

func FuzzParseCreateRequest(f *testing.F) {
	for _, body := range []string{
		exampleBody, `{"appName": "a", "readAccess": true, "writeAccess": true, "expiresAt": "2027-06-01T00:00:00.9+14:00"}`,
		`{"app_name": "\ud800", "read_access": true, "write_access": false}`, `{"a": {"a": 1, "a": 2}}`, `[[[[`, `null`, `1e999`, "\ufeff{}",
	} {
		f.Add([]byte(body))
	}
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		parsed, failure := parseCreateRequest(httptest.NewRecorder(), r, now)
		switch {
		case failure != nil:
			if !slices.Contains([]int{400, 413, 422}, failure.Status) {
				t.Errorf("the status is %d", failure.Status)
			}
		case parsed.expiresAt != nil && (!parsed.expiresAt.After(now) || parsed.expiresAt.Nanosecond() != 0):
			t.Errorf("parsed as %+v", parsed)
		}
	})
}

func FuzzParseUpdateRequest(f *testing.F) {
	for _, body := range []string{
		exampleUpdate, `{}`, `{"readAccess": false, "expiresAt": "2027-06-01T00:00:00.9+14:00"}`, `{"read_access": null}`,
		`{"app_name": "a"}`, `{"write_access": true, "writeAccess": true}`, `[]`, `null`, `1e999`,
	} {
		f.Add([]byte(body))
	}
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, "/", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		parsed, failure := parseUpdateRequest(httptest.NewRecorder(), r, now)
		switch {
		case failure != nil:
			if !slices.Contains([]int{400, 413, 422}, failure.Status) {
				t.Errorf("the status is %d", failure.Status)
			}
		case parsed.readAccess == nil && parsed.writeAccess == nil && !parsed.setsExpiry,
			parsed.expiresAt != nil && (!parsed.setsExpiry || !parsed.expiresAt.After(now) || parsed.expiresAt.Nanosecond() != 0):
			t.Errorf("parsed as %+v", parsed)
		}
	})
}

func FuzzParseRotateRequest(f *testing.F) {
	for _, body := range []string{
		exampleRotate, ``, `{}`, `{"overlap": null}`, `{"overlap": "0"}`, `{"overlap": "-1h"}`, `{"overlap": "1.5s"}`, `{"overlap": "999999h1s"}`,
		`{"overlap": "1h", "overlap": "2h"}`, `{"at": "now"}`, `[]`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		overlap, failure := parseRotateRequest(httptest.NewRecorder(), r)
		switch {
		case failure != nil:
			if !slices.Contains([]int{400, 413, 422}, failure.Status) {
				t.Errorf("the status is %d", failure.Status)
			}
		case overlap != nil && (*overlap < 0 || *overlap%time.Second != 0 || *overlap > maxOverlap):
			t.Errorf("parsed as %s", overlap)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add(formatPosition(keyclient.Position{CreatedAt: 1774651396, CreatedAtNanos: 5, Name: "web-shop"}), int64(-1), int64(7), "a/b")
	f.Add("MTIzNA==", int64(0), int64(0), "")
	f.Fuzz(func(t *testing.T, text string, createdAt, nanos int64, name string) {
		if read, err := parsePosition(text); err == nil && formatPosition(read) != text {
			t.Errorf("%q is parsed as %+v", text, read)
		}
		written := keyclient.Position{CreatedAt: createdAt, CreatedAtNanos: nanos, Name: name}
		if read, err := parsePosition(formatPosition(written)); name != "" && (err != nil || read != written) {
			t.Errorf("%+v is parsed as %+v (%v)", written, read, err)
		}
	})
}

func FuzzOpenPaths(f *testing.F) {
	for _, r := range routes {
		f.Add(r.method, "/api/v1"+r.path)
		f.Add("OPTIONS", "/v1"+r.path)
		f.Add("GET", r.path)
	}
	for _, path := range []string{"", "api/v1/health", "//api/v1/api-keys", "/v1//health", "/v1/../v1/health", "/api/v1/./", "/v1/api-keys/.."} {
		f.Add("GET", path)
		f.Add("CONNECT", path)
	}
	const plaintext = "sq_token"
	keyring := authn.NewKeyring()
	keys := NewKeyCache(keyring)
	framework.Must(f, keys.Replace([]any{&v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "key", UID: "uid"},
		Spec:       v1alpha1.APIKeySpec{AppName: "App", ReadAccess: true, WriteAccess: true},
		Status:     v1alpha1.APIKeyStatus{Tokens: []v1alpha1.TokenRecord{{Hash: token.Hash(plaintext), NotBefore: new(metav1.Now())}}},
	}}, ""))
	scheme := k8sruntime.NewScheme()
	framework.Must(f, v1alpha1.AddToScheme(scheme))
	handler := NewHandler(Options{
		Namespace: "shop", Managers: WriteAccessManages, Authenticator: authn.NewAuthenticator(keyring, 0, time.Now), KeyCache: keys,
		Client: fake.NewClientBuilder().WithScheme(scheme).Build(), Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
	})
	status := func(method, path, key string) int {
		got := httptest.NewRecorder()
		handler.ServeHTTP(got, &http.Request{
			Method: method, URL: &url.URL{Path: path}, Header: http.Header{"X-Api-Key": {key}, "Content-Type": {"text/plain"}},
		})
		return got.Code
	}
	open := []string{"/api/v1/health", "/v1/health", "/api/v1/openapi.json", "/v1/openapi.json"}
	f.Fuzz(func(t *testing.T, method, path string) {
		below := path == "/api/v1" || path == "/v1" || strings.HasPrefix(path, "/api/v1/") || strings.HasPrefix(path, "/v1/")
		got := status(method, path, "sq_unknown")
		if needsKey := below && !slices.Contains(open, strings.TrimSuffix(path, "/")); needsKey != (got == http.StatusUnauthorized) {
			t.Errorf("%s %s without a valid key returns %d", method, path, got)
		}
		// 409 and 415 are those of a DELETE of this very key, and of a POST or PATCH without JSON.
		if got := status(method, path, plaintext); method != "" && !slices.Contains([]int{200, 404, 405, 409, 415}, got) {
			t.Errorf("%s %s with a valid key returns %d", method, path, got)
		}
	})
}

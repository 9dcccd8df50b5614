// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func FuzzABodyIsAWholeWishOrRefused(f *testing.F) {
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
		wished, refusal := readWish(httptest.NewRecorder(), r, now)
		switch {
		case refusal != nil:
			if !slices.Contains([]int{400, 413, 422}, refusal.Status) {
				t.Errorf("refused with %d", refusal.Status)
			}
		case !wished.readAccess && !wished.writeAccess,
			wished.expiresAt != nil && (!wished.expiresAt.After(now) || wished.expiresAt.Nanosecond() != 0):
			t.Errorf("taken: %+v", wished)
		}
	})
}

func FuzzAPositionIsReadAsItWasWritten(f *testing.F) {
	f.Add(position{createdAt: 1774651396, id: "805a358f-4740-46ec-926f-ef4ac8d8ab92"}.String(), int64(-1), "a/b")
	f.Add("MTIzNA==", int64(0), "")
	f.Fuzz(func(t *testing.T, text string, createdAt int64, id string) {
		if read, err := parsePosition(text); err == nil && read.String() != text {
			t.Errorf("%q is read as %+v", text, read)
		}
		written := position{createdAt: createdAt, id: id}
		if read, err := parsePosition(written.String()); id != "" && (err != nil || read != written) {
			t.Errorf("%+v is read as %+v (%v)", written, read, err)
		}
	})
}

func FuzzOnlyWhatIsMeantToBeOpenIsOpen(f *testing.F) {
	for _, c := range calls {
		f.Add(c.method, "/api/v1"+c.path)
		f.Add("OPTIONS", "/v1"+c.path)
		f.Add("GET", c.path)
	}
	open := []string{"/api/v1/health", "/v1/health", "/api/v1/openapi.json", "/v1/openapi.json"}
	f.Fuzz(func(t *testing.T, method, path string) {
		found := findRoute(method, path)
		below := path == "/api/v1" || path == "/v1" || strings.HasPrefix(path, "/api/v1/") || strings.HasPrefix(path, "/v1/")
		if want := !below || slices.Contains(open, path); found.open != want {
			t.Errorf("%s %s is open: %t", method, path, found.open)
		}
		if (found.call == nil) == (found.mistake == nil) {
			t.Errorf("%s %s leads to %v and %v", method, path, found.call, found.mistake)
		}
		if found.call != nil && strings.Contains(found.call.path, "{id}") != (found.id != "") {
			t.Errorf("%s %s leads to %s with the id %q", method, path, found.call.name, found.id)
		}
	})
}

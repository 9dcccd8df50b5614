// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"squirrel.dev/apikey-operator/internal/envelope"
)

func TestResponse_IsTheEnvelope(t *testing.T) {
	cases := []struct {
		name   string
		write  func(http.ResponseWriter)
		status int
		body   string
	}{
		{"a payload", envelope.NewPayload([]int{1, 2}).Write,
			200, `{"errorCode":0,"errorMessage":null,"payload":[1,2]}`},
		{"a list", envelope.NewList(slices.Values([]string{"<1>", "2\n"})).Write,
			200, `{"errorCode":0,"errorMessage":null,"payload":["\u003c1\u003e","2\n"]}`},
		{"an empty list", envelope.NewList(slices.Values([]string(nil))).Write,
			200, `{"errorCode":0,"errorMessage":null,"payload":[]}`},
		{"no payload", envelope.NewPayload(nil).Write,
			200, `{"errorCode":0,"errorMessage":null,"payload":null}`},
		{"an error", envelope.NewError(http.StatusConflict, `"app" is in use`).Write,
			409, `{"errorCode":409,"errorMessage":"\"app\" is in use","payload":null}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := httptest.NewRecorder()
			c.write(got)
			if got.Code != c.status || got.Body.String() != c.body {
				t.Errorf("the response is %d %s, want %d %s", got.Code, got.Body, c.status, c.body)
			}
			if header := got.Header(); header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "no-store" {
				t.Errorf("the header of the response is %v", header)
			}
		})
	}
}

// closingWriter accepts one write, like a connection that the client closes after it.
type closingWriter struct {
	*httptest.ResponseRecorder
	parts int
}

func (w *closingWriter) Write(part []byte) (int, error) {
	if w.parts++; w.parts > 1 {
		return 0, errors.New("closed")
	}
	return w.ResponseRecorder.Write(part)
}

func TestNewList_EncodesItemsAsTheyAreWrittenUntilTheClientCloses(t *testing.T) {
	const many = 100_000
	read := 0
	list := envelope.NewList(func(yield func(int) bool) {
		for read = range many {
			if !yield(read) {
				return
			}
		}
	})
	whole := httptest.NewRecorder()
	list.Write(whole)
	var content struct{ Payload []int }
	if err := json.Unmarshal(whole.Body.Bytes(), &content); err != nil || len(content.Payload) != many || content.Payload[many-1] != many-1 {
		t.Errorf("%d items are written (%v)", len(content.Payload), err)
	}
	if length := whole.Header().Get("Content-Length"); length != "" {
		t.Errorf("Content-Length is %s", length)
	}
	closing := &closingWriter{ResponseRecorder: httptest.NewRecorder()}
	list.Write(closing)
	if buffered := closing.Body.Len(); buffered > 64<<10 || read > many/10 {
		t.Errorf("%d bytes were buffered, and %d items read, after the client had closed the connection", buffered, read)
	}
}

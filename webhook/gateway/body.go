// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// maxBodyBytes bounds the question in a body: a token, which may be somebody else's and long, and what goes with it.
const maxBodyBytes = 64 << 10

var (
	notPosted = newMisuse(http.StatusMethodNotAllowed, "This endpoint is asked by POST: the question is in the body of the request.").
			with("Allow", http.MethodPost)
	tooLarge = newMisuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("The body of the request is larger than %d bytes.", maxBodyBytes))
	cutShort = newMisuse(http.StatusBadRequest, "The body of the request did not come to its end: it is shorter than announced, or too slow.")
)

// mediaType is the one form that a protocol's question comes in.
type mediaType struct {
	name  string
	wrong *misuse
}

func newMediaType(name string) *mediaType {
	return &mediaType{name: name, wrong: newMisuse(http.StatusUnsupportedMediaType, "The Content-Type of the request must be "+name+".")}
}

// readBody returns the body of a POST of this media type, or what is wrong with the request.
func (m *mediaType) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *misuse) {
	body, wrong := m.read(w, r)
	if wrong != nil {
		leaveBodyUnread(w, r)
	}
	return body, wrong
}

func (m *mediaType) read(w http.ResponseWriter, r *http.Request) ([]byte, *misuse) {
	if r.Method != http.MethodPost {
		return nil, notPosted
	}
	if !m.isOf(r) {
		return nil, m.wrong
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, tooLarge
	default:
		return nil, cutShort
	}
}

// isOf says whether the body is of this media type, whatever its parameters.
func (m *mediaType) isOf(r *http.Request) bool {
	values := r.Header["Content-Type"]
	if len(values) != 1 {
		return false
	}
	name, _, err := mime.ParseMediaType(values[0])
	return err == nil && name == m.name
}

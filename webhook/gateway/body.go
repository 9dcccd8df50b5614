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

// maxBodyBytes limits the body of a check: a token, which may be a long one of another issuer, and the fields around it.
const maxBodyBytes = 64 << 10

var (
	notPosted = newConfigError(http.StatusMethodNotAllowed, "The method of the request is not POST: send the check in the body of a POST.").
			with("Allow", http.MethodPost)
	bodyTooLarge = newConfigError(http.StatusRequestEntityTooLarge,
		fmt.Sprintf("The request body is larger than %d bytes: send one token.", maxBodyBytes))
	bodyIncomplete = newConfigError(http.StatusBadRequest,
		"The request body is incomplete: it is shorter than announced, or arrived too slowly. Send the request again.")
)

// mediaType is the media type that a protocol requires of the body.
type mediaType struct {
	name  string
	wrong *configError
}

func newMediaType(name string) *mediaType {
	return &mediaType{
		name:  name,
		wrong: newConfigError(http.StatusUnsupportedMediaType, "The Content-Type of the request is not "+name+": send the body in this form."),
	}
}

// readBody returns the body of a POST of this media type.
func (m *mediaType) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *configError) {
	body, err := m.read(w, r)
	if err != nil {
		leaveBodyUnread(w, r)
	}
	return body, err
}

func (m *mediaType) read(w http.ResponseWriter, r *http.Request) ([]byte, *configError) {
	if r.Method != http.MethodPost {
		return nil, notPosted
	}
	if !m.matches(r) {
		return nil, m.wrong
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, bodyTooLarge
	default:
		return nil, bodyIncomplete
	}
}

// matches reports whether the body is of this media type, with any parameters.
func (m *mediaType) matches(r *http.Request) bool {
	values := r.Header["Content-Type"]
	if len(values) != 1 {
		return false
	}
	name, _, err := mime.ParseMediaType(values[0])
	return err == nil && name == m.name
}

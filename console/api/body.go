// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"

	"squirrel.dev/apikey-operator/internal/envelope"
)

// maxBodyLength is many times what the longest app name needs, however it is escaped.
const maxBodyLength = 64 << 10

const exampleBody = `{"app_name": "Frontend App", "read_access": true, "write_access": false}`

var (
	notJSONType = envelope.NewError(http.StatusUnsupportedMediaType, "The body must be JSON: send it with Content-Type: application/json.")
	notJSON     = envelope.NewError(http.StatusBadRequest, "The body is not JSON in UTF-8: send an object such as "+exampleBody+".")
	notAnObject = unprocessable("The body must be a JSON object, such as %s.", exampleBody)
	tooLong     = envelope.NewError(http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is longer than %d bytes.", maxBodyLength))
	tooSlow     = envelope.NewError(http.StatusRequestTimeout, "The body did not arrive in time.")
)

// wish is the body of a creation.
type wish struct {
	appName     string
	readAccess  bool
	writeAccess bool
	expiresAt   *metav1.Time
}

// fieldNames are the fields of a creation, each by the names that it may have.
var fieldNames = map[string]string{
	"app_name": "app_name", "appName": "app_name",
	"read_access": "read_access", "readAccess": "read_access",
	"write_access": "write_access", "writeAccess": "write_access",
	"expires_at": "expires_at", "expiresAt": "expires_at",
}

// readWish reads the body of a creation, at the time now.
func readWish(w http.ResponseWriter, r *http.Request, now time.Time) (*wish, *envelope.Response) {
	object, refusal := readObject(w, r)
	if refusal != nil {
		return nil, refusal
	}
	f := rename(object)
	wished := &wish{
		appName:     f.text("app_name"),
		readAccess:  f.flag("read_access"),
		writeAccess: f.flag("write_access"),
		expiresAt:   f.futureTime("expires_at", now),
	}
	if f.problems == nil && !wished.readAccess && !wished.writeAccess {
		f.complain("A key needs at least one of read_access and write_access.")
	}
	if f.problems != nil {
		return nil, unprocessable("%s", strings.Join(f.problems, " "))
	}
	return wished, nil
}

// readObject reads a body that is one JSON object.
func readObject(w http.ResponseWriter, r *http.Request) (map[string]any, *envelope.Response) {
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return nil, notJSONType
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyLength))
	var exceeded *http.MaxBytesError
	switch {
	case errors.As(err, &exceeded):
		return nil, tooLong
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, tooSlow
	case err != nil || !utf8.Valid(body):
		return nil, notJSON
	}
	var value any
	repeated, err := json.UnmarshalStrict(body, &value, json.DisallowDuplicateFields)
	if err != nil {
		return nil, notJSON
	}
	object, ok := value.(map[string]any)
	switch {
	case !ok:
		return nil, notAnObject
	case repeated != nil:
		return nil, unprocessable("The body has the same field more than once: %v.", repeated[0])
	}
	return object, nil
}

// fields are the fields of a body, and all that is wrong with them.
type fields struct {
	values   map[string]any
	problems []string
}

// rename returns the fields of an object by their first names.
func rename(object map[string]any) *fields {
	f := &fields{values: make(map[string]any, len(object))}
	for _, given := range slices.Sorted(maps.Keys(object)) {
		name, known := fieldNames[given]
		if !known {
			f.complain("The field %.100q is unknown: a key has app_name, read_access, write_access and expires_at.", given)
			continue
		}
		if _, twice := f.values[name]; twice {
			f.complain("The field %s is there by both of its names: give it once.", name)
		}
		f.values[name] = object[given]
	}
	return f
}

func (f *fields) complain(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// text returns a field that must be there and be a string.
func (f *fields) text(name string) string {
	value, ok := f.values[name].(string)
	switch {
	case !ok:
		f.complain("%s must be there, and be a string.", name)
	case strings.ContainsRune(value, utf8.RuneError): // what an escape that is no character is read as
		f.complain("%s has something in it that is no character.", name)
	}
	return value
}

// flag returns a field that must be there and be true or false.
func (f *fields) flag(name string) bool {
	value, ok := f.values[name].(bool)
	if !ok {
		f.complain("%s must be there, and be true or false (without quotes).", name)
	}
	return value
}

// futureTime returns a field that may be there, and is then a date and time after now. Fractions of a second are not counted.
func (f *fields) futureTime(name string, now time.Time) *metav1.Time {
	given := f.values[name]
	if given == nil {
		return nil
	}
	text, _ := given.(string)
	value, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		f.complain("%s must be a date and time with its zone, such as 2027-06-01T00:00:00Z (RFC 3339), or null.", name)
	case !value.Truncate(time.Second).After(now):
		f.complain("%s must be in the future, and it is now %s.", name, now.UTC().Format(time.RFC3339))
	case value.UTC().Year() >= 9999:
		f.complain("%s must be before the year 9999.", name)
	}
	return new(metav1.NewTime(value.Truncate(time.Second)))
}

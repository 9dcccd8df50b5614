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

// maxBodyLength is the maximum length of a body, in bytes. The longest app name, with all of its characters escaped, needs much less.
const maxBodyLength = 64 << 10

// Examples of bodies, for errors.
const (
	exampleBody   = `{"app_name": "Frontend App", "read_access": true, "write_access": false}`
	exampleUpdate = `{"write_access": true, "expires_at": null}`
	exampleRotate = `{"overlap": "24h"}`
)

var (
	notJSONType = envelope.NewError(http.StatusUnsupportedMediaType, "The body must be JSON: set Content-Type to application/json.")
	tooLong     = envelope.NewError(http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is longer than %d bytes.", maxBodyLength))
	noAccess    = unprocessable("A key needs read_access, write_access or both.")
	tooSlow     = envelope.NewError(http.StatusRequestTimeout, "The body did not arrive in time.")
)

// createRequest is the body of a request to create a key.
type createRequest struct {
	appName     string
	readAccess  bool
	writeAccess bool
	expiresAt   *metav1.Time
}

// fieldSet is the fields that a body may have.
type fieldSet struct {
	// names maps the names of the fields, in snake_case and in camelCase, to those in snake_case.
	names map[string]string
	// description lists the fields for errors.
	description string
}

var (
	fieldsOfKey = fieldSet{map[string]string{
		"app_name": "app_name", "appName": "app_name",
		"read_access": "read_access", "readAccess": "read_access",
		"write_access": "write_access", "writeAccess": "write_access",
		"expires_at": "expires_at", "expiresAt": "expires_at",
	}, "a key has app_name, read_access, write_access and expires_at"}
	fieldsOfRotation = fieldSet{map[string]string{"overlap": "overlap"}, "a rotation has overlap"}
)

// parseCreateRequest reads a createRequest from the body of a request that arrives at the time now.
func parseCreateRequest(w http.ResponseWriter, r *http.Request, now time.Time) (*createRequest, *envelope.Response) {
	object, failure := parseObject(w, r, exampleBody)
	if failure != nil {
		return nil, failure
	}
	f := parseFields(object, fieldsOfKey)
	parsed := &createRequest{
		appName:     f.text("app_name"),
		readAccess:  f.flag("read_access"),
		writeAccess: f.flag("write_access"),
		expiresAt:   f.futureTime("expires_at", now),
	}
	return parsed, f.failure()
}

// updateRequest is the body of a request to change a key.
type updateRequest struct {
	readAccess  *bool        // nil: unchanged
	writeAccess *bool        // nil: unchanged
	setsExpiry  bool         // false: expiresAt is unchanged
	expiresAt   *metav1.Time // nil: never
}

// parseUpdateRequest reads an updateRequest from the body of a request that arrives at the time now.
func parseUpdateRequest(w http.ResponseWriter, r *http.Request, now time.Time) (*updateRequest, *envelope.Response) {
	object, failure := parseObject(w, r, exampleUpdate)
	if failure != nil {
		return nil, failure
	}
	f := parseFields(object, fieldsOfKey)
	parsed := &updateRequest{
		readAccess:  f.optionalFlag("read_access"),
		writeAccess: f.optionalFlag("write_access"),
		expiresAt:   f.futureTime("expires_at", now),
	}
	_, parsed.setsExpiry = f.values["expires_at"]
	_, renames := f.values["app_name"]
	switch {
	case renames:
		f.addProblem("app_name cannot be changed: create another key, and deactivate this one.")
	case len(object) == 0:
		f.addProblem("The body changes nothing: give read_access, write_access or expires_at.")
	}
	return parsed, f.failure()
}

// maxOverlap is the longest overlap that the schema of an APIKey allows.
const maxOverlap = 999_999 * time.Hour

// parseRotateRequest reads the overlap from the body of a request to rotate a key. It is nil if the body has none, or if there is no body.
func parseRotateRequest(w http.ResponseWriter, r *http.Request) (overlap *time.Duration, failure *envelope.Response) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	object, failure := parseObject(w, r, exampleRotate)
	if failure != nil {
		return nil, failure
	}
	f := parseFields(object, fieldsOfRotation)
	return f.overlap(), f.failure()
}

// parseObject reads a body that is one JSON object. An example of it is for errors.
func parseObject(w http.ResponseWriter, r *http.Request, example string) (map[string]any, *envelope.Response) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || (mediaType != "application/json" && (r.Method != http.MethodPatch || mediaType != "application/merge-patch+json")) {
		return nil, notJSONType
	}
	notJSON := envelope.NewError(http.StatusBadRequest, "The body is not JSON in UTF-8: send an object such as "+example+".")
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
	duplicates, err := json.UnmarshalStrict(body, &value, json.DisallowDuplicateFields)
	if err != nil {
		return nil, notJSON
	}
	object, ok := value.(map[string]any)
	switch {
	case !ok:
		return nil, unprocessable("The body must be a JSON object, such as %s.", example)
	case duplicates != nil:
		return nil, unprocessable("The body repeats a field: %v.", duplicates[0])
	}
	return object, nil
}

// fields are the fields of a body, with all problems that were found in them.
type fields struct {
	values   map[string]any
	problems []string
}

// parseFields returns the fields of an object by their names in snake_case.
func parseFields(object map[string]any, known fieldSet) *fields {
	f := &fields{values: make(map[string]any, len(object))}
	for _, given := range slices.Sorted(maps.Keys(object)) {
		name, ok := known.names[given]
		if !ok {
			f.addProblem("The field %.100q is unknown: %s.", given, known.description)
			continue
		}
		if _, repeated := f.values[name]; repeated {
			f.addProblem("The field %s is given twice, in snake_case and in camelCase: give it once.", name)
		}
		f.values[name] = object[given]
	}
	return f
}

// failure returns the response to all problems, or nil.
func (f *fields) failure() *envelope.Response {
	if f.problems == nil {
		return nil
	}
	return unprocessable("%s", strings.Join(f.problems, " "))
}

func (f *fields) addProblem(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// text returns a required string.
func (f *fields) text(name string) string {
	value, ok := f.values[name].(string)
	switch {
	case !ok:
		f.addProblem("%s is required and must be a string.", name)
	case strings.ContainsRune(value, utf8.RuneError): // the decoder's replacement for an invalid escape
		f.addProblem("%s contains an invalid character.", name)
	}
	return value
}

// flag returns a required boolean.
func (f *fields) flag(name string) bool {
	value, ok := f.values[name].(bool)
	if !ok {
		f.addProblem("%s is required and must be true or false, without quotes.", name)
	}
	return value
}

// optionalFlag returns an optional boolean, which must not be null.
func (f *fields) optionalFlag(name string) *bool {
	if _, given := f.values[name]; !given {
		return nil
	}
	value, ok := f.values[name].(bool)
	if !ok {
		f.addProblem("%s must be true or false, without quotes.", name)
	}
	return &value
}

// overlap returns an optional duration in whole seconds, which must not be null.
func (f *fields) overlap() *time.Duration {
	given, ok := f.values["overlap"]
	if !ok {
		return nil
	}
	text, _ := given.(string)
	value, err := time.ParseDuration(text)
	if err != nil || value < 0 || value > maxOverlap || value%time.Second != 0 {
		f.addProblem("overlap must be a duration in whole seconds, such as 0s, 90m or 24h, of at most %.0fh.", maxOverlap.Hours())
	}
	return &value
}

// futureTime returns an optional time after now, without its fraction of a second.
func (f *fields) futureTime(name string, now time.Time) *metav1.Time {
	given := f.values[name]
	if given == nil {
		return nil
	}
	text, _ := given.(string)
	value, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		f.addProblem("%s must be a date and time with a time zone (RFC 3339), such as 2027-06-01T00:00:00Z, or null.", name)
	case !value.Truncate(time.Second).After(now):
		f.addProblem("%s must be in the future; it is now %s.", name, now.UTC().Format(time.RFC3339))
	case value.UTC().Year() >= 9999:
		f.addProblem("%s must be before the year 9999.", name)
	}
	return new(metav1.NewTime(value.Truncate(time.Second)))
}

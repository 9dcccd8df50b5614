// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// query is the query of a URL. Without a limit parameter, limit is the highest integer; the other fields are then zero.
type query struct {
	activeOnly    bool
	unusedFor     model.Duration
	expiresWithin model.Duration
	force         bool
	limit         int
	after         keyclient.Position
}

// parseQuery parses a query with these parameters. Like the Squirrel backend, it ignores others, and takes the last of repeated ones.
func parseQuery(raw string, known ...string) (*query, *envelope.Response) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, unprocessable("The query of the URL is invalid: separate its parameters by & and percent-encode their values.")
	}
	q := &query{limit: math.MaxInt}
	for _, name := range known {
		given := values[name]
		if given == nil {
			continue
		}
		if problem := q.set(name, given[len(given)-1]); problem != "" {
			return nil, unprocessable("The query parameter %s %s.", name, problem)
		}
	}
	return q, nil
}

// set sets a parameter, or returns the problem with its value.
func (q *query) set(name, value string) (problem string) {
	var err error
	switch name {
	case "active_only":
		q.activeOnly, err = strconv.ParseBool(value)
		problem = "must be true or false"
	case "unused_for":
		if q.unusedFor, err = model.ParseDuration(value); time.Duration(q.unusedFor) < apikey.LastUseResolution {
			err = strconv.ErrRange
		}
		problem = "must be a duration of at least 1d, such as 90d, because the last use of a key is recorded once a day"
	case "expires_within":
		if q.expiresWithin, err = model.ParseDuration(value); q.expiresWithin == 0 {
			err = strconv.ErrRange
		}
		problem = "must be a duration of more than 0s, such as 12h or 30d"
	case "force":
		q.force, err = strconv.ParseBool(value)
		problem = "must be true or false"
	case "limit":
		if q.limit, err = strconv.Atoi(value); q.limit < 1 {
			err = strconv.ErrRange
		}
		problem = "must be an integer of at least 1; omit it to list all keys"
	case "continue":
		q.after, err = parsePosition(value)
		problem = "must be the one in the Link header of the previous page; omit it to list from the first key"
	}
	if err == nil {
		return ""
	}
	return problem
}

// formatPosition returns a position as a continue parameter, which is opaque to clients.
func formatPosition(p keyclient.Position) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%d/%s", p.CreatedAt, p.CreatedAtNanos, p.Name))
}

// parsePosition parses a continue parameter.
func parsePosition(text string) (keyclient.Position, error) {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return keyclient.Position{}, err
	}
	parts := strings.SplitN(string(decoded), "/", 3)
	if len(parts) < 3 || parts[2] == "" {
		return keyclient.Position{}, errNoPosition
	}
	createdAt, err := strconv.ParseInt(parts[0], 10, 64)
	nanos, nanosErr := strconv.ParseInt(parts[1], 10, 64)
	p := keyclient.Position{CreatedAt: createdAt, CreatedAtNanos: nanos, Name: parts[2]}
	if err != nil || nanosErr != nil || formatPosition(p) != text {
		return keyclient.Position{}, errNoPosition
	}
	return p, nil
}

var errNoPosition = errors.New("not a continue parameter")

// next returns the Link header (RFC 8288) to the keys after a position. It is relative to the URL of the request, so that it works below
// each base, and behind a proxy that adds a path prefix.
func (q *query) next(last keyclient.Position) string {
	parameters := url.Values{"limit": {strconv.Itoa(q.limit)}, "continue": {formatPosition(last)}}
	if q.activeOnly {
		parameters.Set("active_only", "true")
	}
	if q.unusedFor != 0 {
		parameters.Set("unused_for", q.unusedFor.String())
	}
	if q.expiresWithin != 0 {
		parameters.Set("expires_within", q.expiresWithin.String())
	}
	return "<?" + parameters.Encode() + `>; rel="next"`
}

// filter returns the filter for the keys that the query selects at the instant now.
func (q *query) filter(now time.Time) func(*entry) bool {
	return func(e *entry) bool {
		return (!q.activeOnly || e.activeAt(now)) &&
			(q.unusedFor == 0 || e.isUnusedAt(now, time.Duration(q.unusedFor))) &&
			(q.expiresWithin == 0 || e.isExpiringAt(now, time.Duration(q.expiresWithin)))
	}
}

// unprocessable returns the response to a request that is well-formed but invalid.
func unprocessable(format string, args ...any) *envelope.Response {
	return envelope.NewError(http.StatusUnprocessableEntity, fmt.Sprintf(format, args...))
}

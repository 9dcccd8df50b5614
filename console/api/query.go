// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"squirrel.dev/apikey-operator/internal/envelope"
)

// query is the query of a URL. Without a limit parameter, limit is the highest integer; the other fields are then zero.
type query struct {
	activeOnly bool
	force      bool
	limit      int
	after      position
}

// parseQuery parses a query with these parameters, each at most once. Unknown parameters are refused, because they may be misspelt.
func parseQuery(raw string, allowed ...string) (*query, *envelope.Response) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, unprocessable("The query of the URL is invalid: separate its parameters by & and percent-encode their values.")
	}
	q := &query{limit: math.MaxInt}
	for name, given := range values {
		switch {
		case !slices.Contains(allowed, name):
			return nil, unprocessable("The query parameter %q is unknown: this request takes %s.", name, cmp.Or(strings.Join(allowed, ", "), "none"))
		case len(given) > 1:
			return nil, unprocessable("The query parameter %s is repeated: give it once.", name)
		}
		if problem := q.set(name, given[0]); problem != "" {
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

// String returns the position as a continue parameter, which is opaque to clients.
func (p position) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%s", p.createdAt, p.id))
}

// parsePosition parses a continue parameter.
func parsePosition(text string) (position, error) {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return position{}, err
	}
	created, id, _ := strings.Cut(string(decoded), "/")
	createdAt, err := strconv.ParseInt(created, 10, 64)
	if err != nil {
		return position{}, err
	}
	p := position{createdAt: createdAt, id: id}
	if id == "" || p.String() != text {
		return position{}, errors.New("not a continue parameter")
	}
	return p, nil
}

// next returns the Link header (RFC 8288) to the keys after a position. It is relative to the URL of the request, so that it works below
// each base, and behind a proxy that adds a path prefix.
func (q *query) next(last position) string {
	parameters := url.Values{"limit": {strconv.Itoa(q.limit)}, "continue": {last.String()}}
	if q.activeOnly {
		parameters.Set("active_only", "true")
	}
	return "<?" + parameters.Encode() + `>; rel="next"`
}

// filter returns the filter for the keys that the query selects at the instant now.
func (q *query) filter(now time.Time) func(*entry) bool {
	return func(e *entry) bool { return !q.activeOnly || e.activeAt(now) }
}

// unprocessable returns the response to a request that is well-formed but invalid.
func unprocessable(format string, args ...any) *envelope.Response {
	return envelope.NewError(http.StatusUnprocessableEntity, fmt.Sprintf(format, args...))
}

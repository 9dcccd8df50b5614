// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
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

// query is the query of a URL. The zero value of each field is that of a parameter that is not there, but limit is then without bound.
type query struct {
	activeOnly bool
	force      bool
	limit      int
	after      position
}

// parseQuery reads a query that may have these parameters, each once. Any other is refused, so that none is misspelt unnoticed.
func parseQuery(raw string, allowed ...string) (*query, *envelope.Response) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, unprocessable("The query of the URL cannot be read: separate its parameters by & and percent-encode their values.")
	}
	q := &query{limit: math.MaxInt}
	for name, given := range values {
		switch {
		case !slices.Contains(allowed, name):
			return nil, unprocessable("The query parameter %q is unknown here: this call takes %s.", name, listing(allowed))
		case len(given) > 1:
			return nil, unprocessable("The query parameter %s is there more than once: give it once.", name)
		}
		if problem := q.set(name, given[0]); problem != "" {
			return nil, unprocessable("The query parameter %s %s.", name, problem)
		}
	}
	return q, nil
}

// set sets a parameter, or returns what is wrong with its value.
func (q *query) set(name, value string) (problem string) {
	const eitherTrueOrFalse = "must be true or false"
	var err error
	switch name {
	case "active_only":
		if q.activeOnly, err = strconv.ParseBool(value); err != nil {
			return eitherTrueOrFalse
		}
	case "force":
		if q.force, err = strconv.ParseBool(value); err != nil {
			return eitherTrueOrFalse
		}
	case "limit":
		if q.limit, err = strconv.Atoi(value); err != nil || q.limit < 1 {
			return "must be a whole number, 1 or more; without it, all keys are listed"
		}
	case "continue":
		if q.after, err = parsePosition(value); err != nil {
			return "must be as the Link header of the page before has it; without it, the list starts from the beginning"
		}
	}
	return ""
}

// String returns the position as clients are given it. It means nothing to them.
func (p position) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d/%s", p.createdAt, p.id))
}

// parsePosition reads what [position.String] wrote.
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
		return position{}, fmt.Errorf("no position")
	}
	return p, nil
}

// next returns the value of a Link header (RFC 8288) that leads to the keys after a position. It is relative to the URL that was asked, so
// that it holds below each base, and behind a proxy that puts a path of its own before ours.
func (q *query) next(last position) string {
	parameters := url.Values{"limit": {strconv.Itoa(q.limit)}, "continue": {last.String()}}
	if q.activeOnly {
		parameters.Set("active_only", "true")
	}
	return "<?" + parameters.Encode() + `>; rel="next"`
}

// filter returns which keys are asked for, at the instant now.
func (q *query) filter(now time.Time) func(*entry) bool {
	return func(e *entry) bool { return !q.activeOnly || e.activeAt(now) }
}

// unprocessable is the answer to what is understood and cannot be done.
func unprocessable(format string, args ...any) *envelope.Response {
	return envelope.NewError(http.StatusUnprocessableEntity, fmt.Sprintf(format, args...))
}

// listing is a list in a sentence: "none", "a", "a and b", "a, b and c".
func listing(names []string) string {
	switch last := len(names) - 1; last {
	case -1:
		return "none"
	case 0:
		return names[0]
	default:
		return strings.Join(names[:last], ", ") + " and " + names[last]
	}
}

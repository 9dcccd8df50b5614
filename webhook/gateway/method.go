// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"golang.org/x/net/http/httpguts"
)

// methodIn returns the method that a header names. It is not ok when the header is missing, repeated or no method at all; one that
// nobody knows is a method (RFC 9110, section 9.1: any token, case-sensitive).
func methodIn(r *http.Request, header string) (method string, ok bool) {
	values := r.Header[header]
	if len(values) != 1 {
		return "", false
	}
	return values[0], httpguts.ValidHeaderFieldName(values[0]) // field names are tokens too
}

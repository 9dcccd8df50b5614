// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"golang.org/x/net/http/httpguts"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// aboutRequest answers a gateway that holds a request back until it knows whether that may pass. The gateway sends the request's
// headers, and says its method as the protocol wants it; when it does not, help tells its operator what to set.
func aboutRequest(method func(r *http.Request) (method string, ok bool), help string) func(
	d *desk, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
	wrongMethod := newMisuse(http.StatusBadRequest, help)
	return func(d *desk, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
		method, ok := method(r)
		if !ok {
			return d.refuse(w, wrongMethod)
		}
		verdict := d.decide(r.Context(), authn.Request{
			Namespace:  namespace,
			Credential: authn.ExtractCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
			Access:     authn.AccessFor(method),
		})
		if verdict.Decision == authn.Granted {
			writeGranted(w, verdict.Key)
		} else {
			d.refusals.To(verdict).Write(w)
		}
		return verdict.Decision
	}
}

// methodIn returns the method that a header names. It is not ok when the header is missing, repeated or no method at all; one that
// nobody knows is a method (RFC 9110, section 9.1: any token, case-sensitive).
func methodIn(r *http.Request, header string) (method string, ok bool) {
	values := r.Header[header]
	if len(values) != 1 {
		return "", false
	}
	return values[0], httpguts.ValidHeaderFieldName(values[0]) // field names are tokens too
}

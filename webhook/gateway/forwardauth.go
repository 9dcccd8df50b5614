// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"golang.org/x/net/http/httpguts"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// methodSource is where a protocol has the method of the client's request.
type methodSource struct {
	// header with the method, in canonical form. If it is empty, the check itself has the method.
	header string
	// help says what to configure when the method is missing.
	help string
}

// forwardAuth serves the checks of a gateway that holds a client's request back until it has the response. A check has the headers of the
// client's request.
func forwardAuth(source methodSource) func(c *checker, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
	message := source.help
	if source.header != "" {
		message = "The " + source.header + " header of the check is missing, repeated or not a method. " + source.help
	}
	wrongMethod := newConfigError(http.StatusBadRequest, message)
	return func(c *checker, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
		access, ok := source.accessFor(r)
		if !ok {
			return c.reject(w, wrongMethod)
		}
		verdict := c.check(r.Context(), authn.Request{
			Namespace:  namespace,
			Credential: authn.ExtractCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
			Access:     access,
		})
		if verdict.Decision == authn.Granted {
			writeGranted(w, verdict.Key)
		} else {
			c.denials.For(verdict).Write(w)
		}
		return verdict.Decision
	}
}

// accessFor returns the access that the client's request needs. ok is false if the gateway is not one that this source is right for.
//
// Without a header in the source, the method of the check counts. A gateway of that kind sets no header with the method. A check with such
// a header is therefore from another kind of gateway, and its own method is not that of the client's request. With a header in the source,
// other headers may be from clients. They can only add to the access that is needed, so a client gains nothing by them, even if the
// gateway uses the wrong endpoint.
func (s methodSource) accessFor(r *http.Request) (needed authn.Access, ok bool) {
	method, ok := r.Method, true
	if s.header != "" {
		method, ok = methodIn(r, s.header)
	}
	var others namedMethods
	for name, values := range r.Header {
		if name == s.header {
			continue
		}
		if list := others.listFor(name); list != nil {
			*list = append(*list, values...)
		}
	}
	if s.header == "" && others.originals != nil {
		return 0, false
	}
	return authn.AccessFor(method) | others.access(), ok
}

// methodIn returns the method in a header. ok is false if the header is missing, repeated or not a method. Unknown methods are methods
// (RFC 9110, section 9.1: any token, case-sensitive).
func methodIn(r *http.Request, header string) (method string, ok bool) {
	values := r.Header[header]
	if len(values) != 1 {
		return "", false
	}
	return values[0], httpguts.ValidHeaderFieldName(values[0]) // a field name is a token too
}

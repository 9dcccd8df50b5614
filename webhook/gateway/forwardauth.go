// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// methodSource says where a protocol's requests have the method of the client's request.
type methodSource struct {
	// header that names it, in canonical form. Empty means that it is the method of the gateway's own request.
	header string
	// help says what to set when a gateway names it elsewhere.
	help string
}

// aboutRequest answers a gateway that holds a request back until it knows whether that may pass. The gateway sends the request's
// headers, and its method as the protocol wants it.
func aboutRequest(source methodSource) func(d *desk, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
	wrongMethod := newMisuse(http.StatusBadRequest, source.help)
	return func(d *desk, w http.ResponseWriter, r *http.Request, namespace string) authn.Decision {
		access, ok := source.accessFor(r)
		if !ok {
			return d.refuse(w, wrongMethod)
		}
		verdict := d.decide(r.Context(), authn.Request{
			Namespace:  namespace,
			Credential: authn.ExtractCredential(r.Header["X-Api-Key"], r.Header["Authorization"]),
			Access:     access,
		})
		if verdict.Decision == authn.Granted {
			writeGranted(w, verdict.Key)
		} else {
			d.denials.For(verdict).Write(w)
		}
		return verdict.Decision
	}
}

// accessFor returns the rights that the client's request needs. It is not ok when the gateway is not one that this source is right for.
//
// A gateway that sends its own request's method for the client's has no reason to name another one, so a header that does so is the sign
// of a gateway whose own requests all have one method. Where the method is in a header, other headers may come from clients: they only add
// to the rights that are needed, so that no client gains by them, also behind a gateway that asks at the wrong endpoint.
func (s methodSource) accessFor(r *http.Request) (needed authn.Access, ok bool) {
	method, ok := r.Method, true
	if s.header != "" {
		method, ok = methodIn(r, s.header)
	}
	var others otherMethods
	for name, values := range r.Header {
		if list := others.listFor(name); list != nil && name != s.header {
			*list = append(*list, values...)
		}
	}
	if s.header == "" && others.originals != nil {
		return 0, false
	}
	return authn.AccessFor(method) | others.access(), ok
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

// otherMethods are the methods that the headers of a request name beside the one that its protocol is about.
type otherMethods struct {
	// originals are those in headers by which gateways name the method of the client's request.
	originals []string
	// overrides are those in headers by which clients have services take a request for one of another method.
	overrides []string
}

// methodHeaders are the names of such headers, in lower case.
var methodHeaders = [...]struct {
	name       string
	isOverride bool
}{
	{"method", false},             // NGINX Gateway Fabric
	{"x-forwarded-method", false}, // Traefik, Caddy, APISIX, Higress
	{"x-original-method", false},  // ingress-nginx, and nginx by custom
	{"x-envoy-original-method", false},
	// The rest are names that people give it in configurations of nginx, HAProxy and Envoy.
	{"x-auth-request-method", false},
	{"x-forwarded-http-method", false},
	{"x-forwarded-verb", false},
	{"x-method", false},
	{"x-orig-method", false},
	{"x-origin-method", false},
	{"x-original-http-method", false},
	{"x-original-request-method", false},
	{"x-original-verb", false},
	{"x-real-method", false},
	{"x-request-method", false},

	{"x-http-method", true},
	{"x-http-method-override", true},
	{"x-method-override", true},
}

// overrideHeaders returns the names of those that are for services.
func overrideHeaders() (names []string) {
	for _, header := range methodHeaders {
		if header.isOverride {
			names = append(names, header.name)
		}
	}
	return names
}

// listFor returns where the values of a header belong, or nil if it names no method.
func (m *otherMethods) listFor(name string) *[]string {
	if !mayNameMethod(name) {
		return nil
	}
	for i := range methodHeaders {
		if header := &methodHeaders[i]; isSameHeader(name, header.name) {
			if header.isOverride {
				return &m.overrides
			}
			return &m.originals
		}
	}
	return nil
}

// mayNameMethod says quickly of most headers that they are none of methodHeaders, which all end in method, verb or override.
func mayNameMethod(name string) bool {
	if len(name) < len("method") {
		return false
	}
	switch end := name[len(name)-3:]; [3]byte{end[0] | 0x20, end[1] | 0x20, end[2] | 0x20} { // in lower case
	case [3]byte{'h', 'o', 'd'}, [3]byte{'e', 'r', 'b'}, [3]byte{'i', 'd', 'e'}:
		return true
	default:
		return false
	}
}

// isSameHeader says whether a name is a lower-case one, in any case, and with any punctuation in place of the hyphens: many services take
// X_HTTP_Method_Override for X-HTTP-Method-Override.
func isSameHeader(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case (c < 'a' || 'z' < c) && (c < '0' || '9' < c):
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// access returns the rights that all of them need. A service that obeys an override may understand its value in ways of its own, so any
// needs Write.
func (m *otherMethods) access() authn.Access {
	access := accessForAll(m.originals) | accessForAll(m.overrides)
	if len(m.overrides) > 0 {
		access |= authn.Write
	}
	return access
}

// accessForAll returns the rights for all methods that values name. Proxies join two headers into one with a comma, and there are
// services that do not mind the case of a method. An empty value names none.
func accessForAll(values []string) (access authn.Access) {
	for _, value := range values {
		for method := range strings.SplitSeq(value, ",") {
			if method = strings.TrimSpace(method); method != "" {
				access |= authn.AccessFor(method) | authn.AccessFor(strings.ToUpper(method))
			}
		}
	}
	return access
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"strings"

	"squirrel.dev/apikey-operator/webhook/authn"
)

// methodHeaders are the headers that name a method, in lower case.
var methodHeaders = [...]struct {
	name       string
	isOverride bool
}{
	{"method", false},             // NGINX Gateway Fabric
	{"x-forwarded-method", false}, // Traefik, Caddy, APISIX, Higress
	{"x-original-method", false},  // ingress-nginx, and nginx by custom
	{"x-envoy-original-method", false},
	// The rest are custom names in configurations of nginx, HAProxy and Envoy.
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

// overrideHeaders returns the names of the headers with which a client overrides the method.
func overrideHeaders() (names []string) {
	for _, header := range methodHeaders {
		if header.isOverride {
			names = append(names, header.name)
		}
	}
	return names
}

// namedMethods are the methods that the methodHeaders of a request name, apart from the header that its protocol uses.
type namedMethods struct {
	// originals are from headers that gateways set to the method of the client's request.
	originals []string
	// overrides are from headers with which clients override the method at the service.
	overrides []string
}

// listFor returns the list that the values of a header belong to, or nil if the header names no method.
func (m *namedMethods) listFor(name string) *[]string {
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

// mayNameMethod reports quickly whether a header may be one of the methodHeaders, which all end in method, verb or override.
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

// isSameHeader reports whether a name equals a lower-case one, in any case, and with any punctuation in place of the hyphens: many
// services accept X_HTTP_Method_Override as X-HTTP-Method-Override.
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

// access returns the access that all the methods need. Services may read the value of an override in different ways, so an override with
// any value needs Write.
func (m *namedMethods) access() authn.Access {
	access := accessForAll(m.originals) | accessForAll(m.overrides)
	if len(m.overrides) > 0 {
		access |= authn.Write
	}
	return access
}

// accessForAll returns the access for all methods in the values of headers. Proxies join two headers into one with a comma, and some
// services ignore the case of a method. An empty value names no method.
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

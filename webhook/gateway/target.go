// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import "strings"

const (
	root          = "/auth/"
	namespaceHelp = "where {namespace} is the Kubernetes namespace of the keys: 1 to 63 characters of a-z, 0-9 and '-', " +
		"starting and ending with a letter or digit, not percent-encoded."
)

// target is what the target of a request asks for. Both parts may be anything, also empty.
type target struct {
	// protocol is "envoy" in /auth/envoy/shop/some/path.
	protocol string
	// namespace is "shop" there.
	namespace string
	// more is true when a slash follows the namespace.
	more bool
}

// cutTarget cuts a request target as it stands on the request line. Nothing is decoded and no path is cleaned: whatever the client of
// a gateway adds to it, the namespace stays the one that the gateway set.
func cutTarget(requestURI string) target {
	below, ok := strings.CutPrefix(pathOf(requestURI), root)
	if !ok {
		return target{}
	}
	protocol, rest, _ := strings.Cut(below, "/")
	namespace, _, more := strings.Cut(rest, "/")
	return target{protocol: protocol, namespace: namespace, more: more}
}

// pathOf returns the path, undecoded and without query, of a request target in origin-form or absolute-form (RFC 9112, section 3.2).
// It is empty for any other form.
func pathOf(requestURI string) string {
	path := requestURI
	if !strings.HasPrefix(path, "/") {
		path = afterAuthority(path)
	}
	path, _, _ = strings.Cut(path, "?")
	return path
}

// afterAuthority returns what follows the scheme and the authority of an http or https URI (RFC 9110, section 4.2).
func afterAuthority(uri string) string {
	scheme, rest, ok := strings.Cut(uri, "://")
	isHTTP := strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")
	end := strings.IndexAny(rest, "/?")
	if !ok || !isHTTP || end < 0 {
		return ""
	}
	return rest[end:]
}

// isDNSLabel says whether a name is a DNS label (RFC 1123, section 2.1, in lower case), as the name of a namespace is.
func isDNSLabel(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import "strings"

const (
	root          = "/auth/"
	namespaceHelp = "where {namespace} is the Kubernetes namespace of the keys: 1 to 63 characters of a-z, 0-9 and '-', " +
		"starting and ending with a letter or digit, not percent-encoded."
)

// target is the parsed target of a request. The protocol and the namespace may be any text, also empty.
type target struct {
	// protocol is "envoy" in /auth/envoy/shop/some/path.
	protocol string
	// namespace is "shop" in that example.
	namespace string
	// hasClientPath is true if a slash follows the namespace.
	hasClientPath bool
}

// parseTarget parses a request target. It decodes nothing and cleans no path, so that the namespace is always the one that the gateway
// set, no matter what a client's path adds to it.
func parseTarget(requestURI string) target {
	below, ok := strings.CutPrefix(pathOf(requestURI), root)
	if !ok {
		return target{}
	}
	protocol, rest, _ := strings.Cut(below, "/")
	namespace, _, hasClientPath := strings.Cut(rest, "/")
	return target{protocol: protocol, namespace: namespace, hasClientPath: hasClientPath}
}

// pathOf returns the path of a request target in origin-form or absolute-form (RFC 9112, section 3.2), undecoded and without query. It
// returns "" for any other form.
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

// isDNSLabel reports whether a name is a lower-case DNS label (RFC 1123, section 2.1), as the name of each namespace is.
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

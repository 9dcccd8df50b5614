// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

// Request asks whether a credential gives access to the services of a namespace.
type Request struct {
	// Namespace whose keys are accepted.
	Namespace string
	// Credential that the client presents.
	Credential Credential
	// Access that the request needs. Zero needs a valid key alone.
	Access Access
}

// Access is a set of rights.
type Access uint8

// The rights of a key.
const (
	Read Access = 1 << iota
	Write

	// noAccess is a right that no key has.
	noAccess
)

// AccessFor returns the right that a request with this HTTP method needs. GET, HEAD and OPTIONS need Read; every other method, known or
// unknown, needs Write. A request without a method needs a right that no key has. Methods are case-sensitive (RFC 9110, section 9.1).
func AccessFor(method string) Access {
	switch method {
	case "":
		return noAccess
	case "GET", "HEAD", "OPTIONS":
		return Read
	default:
		return Write
	}
}

// String returns the rights as "read", "write" or "read,write".
func (a Access) String() string {
	switch a {
	case Read:
		return "read"
	case Write:
		return "write"
	case Read | Write:
		return "read,write"
	default:
		return ""
	}
}

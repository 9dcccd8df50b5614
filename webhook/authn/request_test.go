// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"testing"

	"squirrel.dev/apikey-operator/webhook/authn"
)

func TestAccessFor(t *testing.T) {
	for method, want := range map[string]authn.Access{
		"GET": authn.Read, "HEAD": authn.Read, "OPTIONS": authn.Read,
		"POST": authn.Write, "PUT": authn.Write, "PATCH": authn.Write, "DELETE": authn.Write, "CONNECT": authn.Write, "TRACE": authn.Write,
		"PROPFIND": authn.Write, "QUERY": authn.Write, "get": authn.Write, "Get": authn.Write, " GET": authn.Write, "GET ": authn.Write,
		"GET,HEAD": authn.Write, "\x00": authn.Write,
	} {
		if got := authn.AccessFor(method); got != want {
			t.Errorf("AccessFor(%q) = %q, want %q", method, got, want)
		}
	}
}

func TestAccessAndDecision_String(t *testing.T) {
	for access, want := range map[authn.Access]string{
		0: "", authn.Read: "read", authn.Write: "write", authn.Read | authn.Write: "read,write",
	} {
		if got := access.String(); got != want {
			t.Errorf("Access(%d) is %q, want %q", access, got, want)
		}
	}
	for decision, want := range map[authn.Decision]string{
		0: "undecided", authn.Granted: "granted", authn.Unauthenticated: "unauthenticated", authn.Forbidden: "forbidden",
		authn.Unavailable: "unavailable",
	} {
		if got := decision.String(); got != want {
			t.Errorf("Decision(%d) is %q, want %q", decision, got, want)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// maxCredentialLength is the maximum length of a token, in bytes. It limits the time to hash one.
const maxCredentialLength = 512

// Credential is the token that a request presents, or the reason why it presents none. The zero value is a missing credential.
type Credential struct {
	token   string
	problem Reason
}

// ExtractCredential returns the credential of a request, from all values of its X-API-Key and Authorization headers. If X-API-Key is
// present, Authorization is for the service, and is not read. Otherwise Authorization must be "Bearer <token>" (RFC 6750, section 2.1;
// the case of the scheme does not matter).
func ExtractCredential(apiKey, authorization []string) Credential {
	switch {
	case len(apiKey) > 0:
		return single(apiKey, wholeValue)
	case len(authorization) > 0:
		return single(authorization, bearerToken)
	default:
		return Credential{problem: ReasonCredentialMissing}
	}
}

// ExtractCallerCredential returns the credential of the caller of an endpoint that takes the token to check in the body, from the same
// values. It also accepts HTTP Basic (RFC 7617): the password is the token, and the user name is not read. Both headers belong to the
// caller, so a request with both is contradictory.
func ExtractCallerCredential(apiKey, authorization []string) Credential {
	switch {
	case len(apiKey) > 0 && len(authorization) > 0:
		return Credential{problem: ReasonCredentialRepeated}
	case len(authorization) > 0:
		return single(authorization, bearerTokenOrPassword)
	default:
		return ExtractCredential(apiKey, nil)
	}
}

// NewCredential returns the credential of a protocol that carries the bare token, such as a TokenReview.
func NewCredential(token string) Credential {
	switch {
	case token == "":
		return Credential{problem: ReasonCredentialMissing}
	case len(token) > maxCredentialLength || !isVisibleASCIIWithoutComma(token):
		return Credential{problem: ReasonCredentialMalformed}
	default:
		return Credential{token: token}
	}
}

func single(values []string, read func(value string) (token string, ok bool)) Credential {
	if len(values) != 1 {
		return Credential{problem: ReasonCredentialRepeated}
	}
	token, ok := read(values[0])
	if !ok {
		return Credential{problem: ReasonCredentialMissing}
	}
	return NewCredential(token)
}

func wholeValue(value string) (string, bool) { return value, true }

func bearerToken(value string) (string, bool) { return afterScheme(value, "Bearer ") }

func bearerTokenOrPassword(value string) (string, bool) {
	encoded, ok := afterScheme(value, "Basic ")
	if !ok {
		return bearerToken(value)
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", false
	}
	_, password, ok := strings.Cut(string(decoded), ":")
	return password, ok
}

func afterScheme(value, scheme string) (credentials string, ok bool) {
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimLeft(value[len(scheme):], " "), true
}

// isVisibleASCIIWithoutComma reports whether a token has no white space, control or non-ASCII characters, and no comma, with which a
// proxy joins two headers into one.
func isVisibleASCIIWithoutComma(token string) bool {
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return true
}

// Format prints a placeholder, so that no printed text contains the token.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(credential)") }

// refusal returns the reason to refuse the credential without a lookup, or "".
func (c Credential) refusal() Reason {
	if c.token == "" {
		return cmp.Or(c.problem, ReasonCredentialMissing)
	}
	return ""
}

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

// maxCredentialLength bounds, in bytes, what is hashed.
const maxCredentialLength = 512

// Credential is the token that a request presents, or why it presents none. The zero value is a missing credential.
type Credential struct {
	token   string
	problem Reason
}

// ExtractCredential finds the credential of a request, given all values of its X-API-Key header and all values of its Authorization
// header. With X-API-Key present, Authorization belongs to somebody else and is not read; otherwise it must be "Bearer <token>"
// (RFC 6750, section 2.1; the scheme in any case).
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

// ExtractCallerCredential finds the credential of whoever asks about a token that is not in a header, given the same values. HTTP Basic
// (RFC 7617) is accepted too: the password is the token as it stands, and the user name is not read. Nobody else's credential comes with
// such a request, so that both headers at once are contradictory.
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

// NewCredential returns the credential of a protocol that carries the token by itself, such as a TokenReview.
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

// isVisibleASCIIWithoutComma refuses white space, control and non-ASCII characters, and the comma with which a proxy joins two
// headers into one.
func isVisibleASCIIWithoutComma(token string) bool {
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return true
}

// Format keeps the token out of whatever is printed.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(credential)") }

// refusal returns why the credential needs no look at the keys, or "".
func (c Credential) refusal() Reason {
	if c.token == "" {
		return cmp.Or(c.problem, ReasonCredentialMissing)
	}
	return ""
}

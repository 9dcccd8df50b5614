// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

// Verdict is the result of a check.
type Verdict struct {
	Decision Decision
	// Reason is empty when the request is granted.
	Reason Reason
	// Key is the key of the token, also when the key has ended. It is nil when the key is unknown. Do not modify it.
	Key *Key
}

// Decision is the outcome of a check. The zero value grants nothing.
type Decision uint8

// The decisions.
const (
	_ Decision = iota
	// Granted: the key is valid and has the access.
	Granted
	// Unauthenticated: no valid key was presented. Verdict.Reason is for logs only: all clients get the same response.
	Unauthenticated
	// Forbidden: the key is valid, and lacks the access.
	Forbidden
	// Unavailable: this process does not know the keys, or does not know them well enough. The key may be valid.
	Unavailable
)

// String returns the decision as metrics and logs show it.
func (d Decision) String() string {
	switch d {
	case Granted:
		return "granted"
	case Unauthenticated:
		return "unauthenticated"
	case Forbidden:
		return "forbidden"
	case Unavailable:
		return "unavailable"
	default:
		return "undecided"
	}
}

// Reason is why a request was not granted.
type Reason string

// The reasons. Logs show all of them. Responses show only those of Forbidden and Unavailable.
const (
	ReasonCredentialMissing   Reason = "CredentialMissing"
	ReasonCredentialRepeated  Reason = "CredentialRepeated"
	ReasonCredentialMalformed Reason = "CredentialMalformed"
	ReasonKeyUnknown          Reason = "KeyUnknown"
	ReasonKeyDeactivated      Reason = "KeyDeactivated"
	ReasonKeyExpired          Reason = "KeyExpired"
	ReasonTokenSuperseded     Reason = "TokenSuperseded"
	ReasonNoReadAccess        Reason = "NoReadAccess"
	ReasonNoWriteAccess       Reason = "NoWriteAccess"
	ReasonNoMethod            Reason = "NoMethod"
	ReasonNotSynced           Reason = "NotSynced"
	ReasonStale               Reason = "Stale"
	ReasonNamespaceNotServed  Reason = "NamespaceNotServed"
)

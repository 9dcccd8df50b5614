// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package authn decides whether a presented API key is good and may do what is asked: Request in, Verdict out. It knows no protocol.
package authn

import (
	"fmt"
	"slices"
	"time"

	"squirrel.dev/apikey-operator/api/token"
)

// Access is a set of rights.
type Access uint8

// The rights of a key.
const (
	Read Access = 1 << iota
	Write

	// nobodys is a right that no key has.
	nobodys
)

// AccessFor returns the right that a request of this HTTP method needs: GET, HEAD and OPTIONS need Read; every other method, known
// or not, needs Write; and no key has the right to none. Methods are case-sensitive (RFC 9110, section 9.1).
func AccessFor(method string) Access {
	switch method {
	case "":
		return nobodys
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

// Request is a question: may whoever presents this credential do this with the services of this namespace?
type Request struct {
	// Namespace whose keys count.
	Namespace string
	// Credential that was presented.
	Credential Credential
	// Access that the request needs. Zero asks only whose key it is.
	Access Access
}

// Decision is the outcome of a question. The zero value is no decision and grants nothing.
type Decision uint8

// The decisions.
const (
	_ Decision = iota
	// Granted: the key is good and has the right.
	Granted
	// Unauthenticated: there is no good key. Verdict.Reason says why, for logs only: whoever asks is told one uniform text.
	Unauthenticated
	// Forbidden: the key is good, and lacks the right.
	Forbidden
	// Unavailable: the keys are not known (well enough) to this process now. It says nothing about the key.
	Unavailable
)

// String returns the decision as metrics and logs name it.
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

// The reasons. They are for logs, in the words that are there; no answer but Forbidden and Unavailable shows them.
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
)

// Verdict is the answer to a Request.
type Verdict struct {
	Decision Decision
	// Reason is empty when granted.
	Reason Reason
	// Key is the key that the token belongs to, also one that has ended; nil when it is not known. It must not be changed.
	Key *Key
}

// MinStaleness is the least bound of staleness that makes sense: when nothing changes, the only word from the Kubernetes API is a
// bookmark, about once a minute, and one may be late. A shorter bound would answer Unavailable on quiet days.
const MinStaleness = 2 * time.Minute

// Authenticator answers requests from the keys in memory.
type Authenticator struct {
	keyring      *Keyring
	maxStaleness time.Duration
	now          func() time.Time
}

// NewAuthenticator returns an Authenticator over a Keyring. When the last word from the Kubernetes API is older than maxStaleness, it
// answers Unavailable; 0 is no bound, any other is at least MinStaleness. The clock now is time.Now, but in tests.
func NewAuthenticator(keyring *Keyring, maxStaleness time.Duration, now func() time.Time) *Authenticator {
	return &Authenticator{keyring: keyring, maxStaleness: maxStaleness, now: now}
}

// Decide answers a request. It does not allocate.
func (a *Authenticator) Decide(request Request) Verdict {
	if reason := a.unavailable(); reason != "" {
		return Verdict{Decision: Unavailable, Reason: reason}
	}
	if reason := request.Credential.refusal(); reason != "" {
		return Verdict{Decision: Unauthenticated, Reason: reason}
	}
	digest := token.Sum(request.Credential.token)
	entry, reason := a.keyring.lookup(request.Namespace, &digest, a.now)
	switch {
	case entry == nil:
		return Verdict{Decision: Unauthenticated, Reason: reason}
	case reason != "":
		return Verdict{Decision: Unauthenticated, Reason: reason, Key: &entry.Key}
	}
	if reason := missingRight(request.Access &^ entry.Access); reason != "" {
		return Verdict{Decision: Forbidden, Reason: reason, Key: &entry.Key}
	}
	return Verdict{Decision: Granted, Key: &entry.Key}
}

// Accepts says whether any token of this very APIKey is accepted.
func (a *Authenticator) Accepts(namespace, name, uid string) bool {
	entries := a.keyring.contents.Load().ofObject(namespace, name)
	return slices.ContainsFunc(entries, func(e *entry) bool { return e.UID == uid && e.refusal(a.now) == "" })
}

// HasKeys says whether a namespace has any tokens, those of ended keys among them.
func (a *Authenticator) HasKeys(namespace string) bool {
	return a.keyring.contents.Load().namespaces.has(namespace)
}

// Ready returns nil when requests can be decided, else why not and what to do.
func (a *Authenticator) Ready() error {
	switch a.unavailable() {
	case ReasonNotSynced:
		return fmt.Errorf("the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is "+
			"installed, and that this process may list and watch apikeys.keys.squirrel.dev (last error: %s)", a.keyring.problem())
	case ReasonStale:
		return fmt.Errorf("the Kubernetes API was last heard %s ago, and --max-staleness allows %s: check that it is reachable "+
			"(last error: %s)", a.keyring.Staleness(a.now()).Round(time.Second), a.maxStaleness, a.keyring.problem())
	default:
		return nil
	}
}

// unavailable returns why nothing can be said of any key now, or "".
func (a *Authenticator) unavailable() Reason {
	switch {
	case !a.keyring.Synced():
		return ReasonNotSynced
	case a.maxStaleness > 0 && a.keyring.Staleness(a.now()) > a.maxStaleness:
		return ReasonStale
	default:
		return ""
	}
}

func missingRight(missing Access) Reason {
	switch {
	case missing == 0:
		return ""
	case missing&Read != 0:
		return ReasonNoReadAccess
	case missing&Write != 0:
		return ReasonNoWriteAccess
	default:
		return ReasonNoMethod
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"slices"
	"time"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// Authenticator decides requests from the keys in memory.
type Authenticator struct {
	keys         keySource
	maxStaleness time.Duration
	now          func() time.Time
}

// keySource is the part of a Keyring that the Authenticator reads.
type keySource interface {
	// lookup returns the entry of a token in a namespace, or nil, and the reason to refuse the token now, or "".
	lookup(namespace string, digest token.Digest, now func() time.Time) (*entry, Reason)
	// entriesOf returns the entries of an APIKey.
	entriesOf(namespace, name string) []*entry
	// hasNamespace reports whether any APIKey of a namespace has an entry.
	hasNamespace(namespace string) bool

	Synced() bool
	Staleness(now time.Time) time.Duration
	// lastError returns the error of the last call to the Kubernetes API, or "none".
	lastError() string
}

// NewAuthenticator returns an Authenticator that reads a Keyring. It decides Unavailable while the Keyring is staler than maxStaleness,
// which is 0 for no bound, or at least MinStaleness. Tests replace the clock time.Now.
func NewAuthenticator(keyring *Keyring, maxStaleness time.Duration, now func() time.Time) *Authenticator {
	return &Authenticator{keys: keyring, maxStaleness: maxStaleness, now: now}
}

// Decide decides a request. It does not allocate.
func (a *Authenticator) Decide(request Request) Verdict {
	if reason := a.unavailable(); reason != "" {
		return Verdict{Decision: Unavailable, Reason: reason}
	}
	if reason := request.Credential.refusal(); reason != "" {
		return Verdict{Decision: Unauthenticated, Reason: reason}
	}
	entry, reason := a.keys.lookup(request.Namespace, token.Sum(request.Credential.token), a.now)
	switch {
	case entry == nil:
		return Verdict{Decision: Unauthenticated, Reason: reason}
	case reason != "":
		return Verdict{Decision: Unauthenticated, Reason: reason, Key: &entry.Key}
	}
	if reason := missingAccess(request.Access &^ entry.Access); reason != "" {
		return Verdict{Decision: Forbidden, Reason: reason, Key: &entry.Key}
	}
	return Verdict{Decision: Granted, Key: &entry.Key}
}

// refusal returns the reason to refuse the token now, or "". It reads the clock only for a token that expires: reading the clock takes
// half as long as hashing the token.
func (e *entry) refusal(clock func() time.Time) Reason {
	var now time.Time
	if e.endsAt != apikey.NeverExpires {
		now = clock()
	}
	switch (apikey.Validity{Deactivated: e.deactivated, Ended: e.ended, ExpiresAt: e.endsAt}).State(now) {
	case apikey.StateDeactivated:
		return ReasonKeyDeactivated
	case apikey.StateExpired:
		if !e.ended && now.Unix() < e.keyEndsAt {
			return ReasonTokenSuperseded
		}
		return ReasonKeyExpired
	default:
		return ""
	}
}

func missingAccess(missing Access) Reason {
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

// Accepts reports whether any token of the APIKey with this UID is accepted.
func (a *Authenticator) Accepts(namespace, name, uid string) bool {
	return slices.ContainsFunc(a.keys.entriesOf(namespace, name), func(e *entry) bool { return e.UID == uid && e.refusal(a.now) == "" })
}

// HasKeys reports whether a namespace has any issued keys, valid or ended.
func (a *Authenticator) HasKeys(namespace string) bool { return a.keys.hasNamespace(namespace) }

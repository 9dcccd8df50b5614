// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"time"
	"unique"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// entry is a key, as the last event showed it. It never changes. A KeyCache has one for each key, so it is kept small.
type entry struct {
	keyclient.Position // with the name of the object

	id         string
	appName    string
	hint       string
	condition  unique.Handle[condition] // most keys have the same one
	updatedAt  int64                    // in seconds since 1970
	generation int64
	validity   apikey.Validity
	rotation   int64 // when the next one is due, in seconds since 1970; 0 if none is declared

	lastUsed    int64 // in seconds since 1970; 0 if no use is on record
	unusedSince int64 // in seconds since 1970; 0 if the key is not issued

	readAccess, writeAccess bool
	claimed, issued         bool
	rotating                bool // a rotation has begun, or is due at any time
	stalled                 bool
	unconfirmed             bool
	manager, bootstrap      bool // the labels of the key
}

// condition is what the conditions of a key say about its state.
type condition struct{ reason, message string }

func newEntry(key *v1alpha1.APIKey) *entry {
	stalled := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionStalled)
	e := &entry{
		Position:    keyclient.PositionOf(key),
		id:          string(key.UID),
		appName:     key.Spec.AppName,
		hint:        hintOf(key),
		updatedAt:   keyclient.UpdatedAt(key).Unix(),
		generation:  key.Generation,
		validity:    apikey.ValidityOf(key),
		readAccess:  key.Spec.ReadAccess,
		writeAccess: key.Spec.WriteAccess,
		claimed:     apikey.IsClaimed(key),
		issued:      apikey.IsIssued(key),
		rotating:    apikey.IsRotationPending(key, time.Time{}),
		unconfirmed: keyclient.IsUnconfirmed(key),
		stalled:     stalled != nil && stalled.Status == metav1.ConditionTrue,
		manager:     key.Labels[v1alpha1.LabelManager] == "true",
		bootstrap:   key.Labels[v1alpha1.LabelBootstrap] == "true",
	}
	if next := apikey.NextRotation(key); next != nil {
		e.rotation = next.Unix()
	}
	if used := apikey.LastUsed(key); used != nil {
		e.lastUsed = used.Unix()
	}
	if since := apikey.UnusedSince(key); since != nil {
		e.unusedSince = since.Unix()
	}
	shown := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
	if e.stalled {
		shown = stalled
	}
	if shown == nil {
		shown = &metav1.Condition{}
	}
	e.condition = unique.Make(condition{shown.Reason, hideHashes(shown.Message)})
	return e
}

// hintOf returns the start of the newest token, or "".
func hintOf(key *v1alpha1.APIKey) string {
	if apikey.IsClaimed(key) {
		return apikey.HintOf(key)
	}
	return key.Spec.TokenHint
}

func (e *entry) compare(p keyclient.Position) int { return e.Position.Compare(p) }

// activeAt reports whether authenticators accept the key at the instant now.
func (e *entry) activeAt(now time.Time) bool {
	return e.issued && e.validity.State(now) == apikey.StateActive
}

// retired reports whether the key was deactivated, or its end is recorded in the status.
func (e *entry) retired() bool { return e.validity.Deactivated || e.validity.Ended }

// endedAt reports whether the key has ended at the instant now, by its declaration, its status or the clock.
func (e *entry) endedAt(now time.Time) bool {
	state := e.validity.State(now)
	return state == apikey.StateDeactivated || state == apikey.StateExpired
}

// States of a key in responses.
const (
	statePending     = "pending"
	stateStalled     = "stalled"
	stateActive      = "active"
	stateDeactivated = "deactivated"
	stateExpired     = "expired"
)

func (e *entry) stateAt(now time.Time) string {
	switch state := e.validity.State(now); {
	case state == apikey.StateDeactivated:
		return stateDeactivated
	case state == apikey.StateExpired:
		return stateExpired
	case state == apikey.StateUnreadable:
		return stateStalled // its owner must act, whatever its conditions are
	case e.issued:
		return stateActive
	case e.stalled:
		return stateStalled
	default:
		return statePending
	}
}

// conditionAt returns the condition that shows the state at the instant now. It has no message if the controller has not recorded yet that
// the key has ended: the recorded one is of an earlier state, such as that the token is accepted.
func (e *entry) conditionAt(now time.Time) condition {
	recorded := e.condition.Value()
	isOfEnd := recorded.reason == v1alpha1.ReasonDeactivated || recorded.reason == v1alpha1.ReasonExpired
	switch state := e.stateAt(now); {
	case state == stateDeactivated && !isOfEnd:
		return condition{reason: v1alpha1.ReasonDeactivated}
	case state == stateExpired && !isOfEnd:
		return condition{reason: v1alpha1.ReasonExpired}
	default:
		return recorded
	}
}

// expiresAt returns when the key expires, or nil.
func (e *entry) expiresAt() *time.Time {
	if e.validity.ExpiresAt == apikey.NeverExpires || e.validity.Unreadable {
		return nil
	}
	return new(inUTC(e.validity.ExpiresAt))
}

// nextRotationAt returns when the next rotation is due, or nil.
func (e *entry) nextRotationAt(now time.Time) *time.Time {
	if e.rotation == 0 || e.endedAt(now) {
		return nil
	}
	return new(inUTC(e.rotation))
}

// rotatingAt reports whether the token is being rotated, or must be rotated, at the instant now.
func (e *entry) rotatingAt(now time.Time) bool {
	next := e.nextRotationAt(now)
	return !e.endedAt(now) && (e.rotating || (next != nil && !now.Before(*next)))
}

// isUnusedAt reports whether the key is accepted at the instant now, and was not used for this time before.
func (e *entry) isUnusedAt(now time.Time, during time.Duration) bool {
	return e.activeAt(now) && e.unusedSince <= now.Add(-during).Unix()
}

// isExpiringAt reports whether the key is accepted at the instant now, and expires within this time.
func (e *entry) isExpiringAt(now time.Time, within time.Duration) bool {
	return e.activeAt(now) && e.validity.ExpiresAt <= now.Add(within).Unix()
}

// inUTCOrNil returns a time in seconds since 1970, or nil for 0.
func inUTCOrNil(seconds int64) *time.Time {
	if seconds == 0 {
		return nil
	}
	return new(inUTC(seconds))
}

func inUTC(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

// asKey returns the parts of the APIKey that determine which key holds an app name.
func (e *entry) asKey() v1alpha1.APIKey {
	key := v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Name: e.Name, UID: types.UID(e.id), CreationTimestamp: metav1.Unix(e.CreatedAt, 0)},
		Spec:       v1alpha1.APIKeySpec{AppName: e.appName, Active: new(!e.validity.Deactivated)},
	}
	if e.validity.Ended {
		key.Status.DeactivatedAt = new(metav1.Unix(e.updatedAt, 0))
	}
	if e.claimed {
		key.Status.Tokens = []v1alpha1.TokenRecord{{}}
	}
	if e.issued {
		key.Status.Tokens[0].NotBefore = new(metav1.Unix(e.CreatedAt, 0))
	}
	if e.stalled {
		key.Status.Conditions = []metav1.Condition{
			{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: e.condition.Value().reason},
		}
	}
	return key
}

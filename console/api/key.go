// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// apiKey is a key in a response. Times are in UTC and whole seconds.
type apiKey struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	AppName string `json:"app_name"`
	// Token is set in the response to a creation or a rotation only.
	Token          string     `json:"token,omitempty"`
	Hint           *string    `json:"hint"`
	ReadAccess     bool       `json:"read_access"`
	WriteAccess    bool       `json:"write_access"`
	IsActive       bool       `json:"is_active"`
	State          string     `json:"state"`
	Reason         *string    `json:"reason"`
	Message        *string    `json:"message"`
	Manager        bool       `json:"manager"`
	Bootstrap      bool       `json:"bootstrap"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
	ExpiresAt      *time.Time `json:"expires_at"`
	Rotating       bool       `json:"rotating"`
	NextRotationAt *time.Time `json:"next_rotation_at"`
	LastUsedAt     *time.Time `json:"last_used_at"`
	UnusedSince    *time.Time `json:"unused_since"`

	*camelCase // nil unless the client expects it
}

// camelCase has the fields of an apiKey under names in camelCase, as the Squirrel backend returns them.
type camelCase struct {
	AppName        string     `json:"appName"`
	ReadAccess     bool       `json:"readAccess"`
	WriteAccess    bool       `json:"writeAccess"`
	IsActive       bool       `json:"isActive"`
	CreatedAt      time.Time  `json:"createdAt"`
	UpdatedAt      time.Time  `json:"updatedAt"`
	ExpiresAt      *time.Time `json:"expiresAt"`
	NextRotationAt *time.Time `json:"nextRotationAt"`
	LastUsedAt     *time.Time `json:"lastUsedAt"`
	UnusedSince    *time.Time `json:"unusedSince"`
}

// keyAt returns a key as the response to a request contains it at the instant now.
func (r *request) keyAt(e *entry, now time.Time) apiKey {
	shown := e.conditionAt(now)
	k := apiKey{
		ID:             e.id,
		Name:           e.Name,
		AppName:        e.appName,
		ReadAccess:     e.readAccess,
		WriteAccess:    e.writeAccess,
		IsActive:       e.activeAt(now),
		State:          e.stateAt(now),
		Reason:         nullable(shown.reason),
		Message:        nullable(shown.message),
		Manager:        e.manager,
		Bootstrap:      e.bootstrap,
		CreatedAt:      inUTC(e.CreatedAt),
		UpdatedAt:      inUTC(e.updatedAt),
		ExpiresAt:      e.expiresAt(),
		Rotating:       e.rotatingAt(now),
		NextRotationAt: e.nextRotationAt(now),
		LastUsedAt:     inUTCOrNil(e.lastUsed),
		UnusedSince:    inUTCOrNil(e.unusedSince),
	}
	if e.hint != "" {
		k.Hint = &e.hint
	}
	if r.expectsCamelCase() {
		k.camelCase = &camelCase{
			k.AppName, k.ReadAccess, k.WriteAccess, k.IsActive, k.CreatedAt, k.UpdatedAt, k.ExpiresAt, k.NextRotationAt,
			k.LastUsedAt, k.UnusedSince,
		}
	}
	return k
}

// nullable returns nil, which is null in JSON, for an empty text.
func nullable(text string) *string {
	if text == "" {
		return nil
	}
	return new(text)
}

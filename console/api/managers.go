// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// Managers says which keys with write access may create and end keys.
type Managers string

const (
	// WriteAccessManages lets all of them, and lets them create keys with any access, as the Squirrel backend does.
	WriteAccessManages Managers = "write-access"
	// LabelledManage lets those whose APIKey has the label [v1alpha1.LabelManager], and lets them create keys with no more than their own
	// access. It is what any other value means.
	LabelledManage Managers = "labelled"
)

var (
	managerUnknown     = unavailable("It is not known yet whether this key manages keys: try again.")
	noReadAccessToGive = envelope.NewError(http.StatusForbidden,
		"This key has no read access, so it cannot create a key that has: create one with write access alone, or use a key that has both.")
)

// refuseManagement returns the answer to a key that may not create or end keys, or nil. The KeyCache knows the labels; the Keyring, which
// knows what all decisions about requests need, does not.
func (a *API) refuseManagement(key *authn.Key) *envelope.Response {
	if a.Managers == WriteAccessManages {
		return nil
	}
	switch e := a.KeyCache.find(key.UID); {
	case e == nil: // the Keyring heard of the key first
		return managerUnknown
	case !e.manager:
		return envelope.NewError(http.StatusForbidden, fmt.Sprintf("This key may not create or end keys: use one that manages keys, or let "+
			"it manage them: kubectl label apikey %s --namespace=%s %s=true", key.Name, key.Namespace, v1alpha1.LabelManager))
	default:
		return nil
	}
}

// refuseAccess returns the answer to a key that may not create such a key, or nil. Write access it has, because the call needs it.
func (a *API) refuseAccess(key *authn.Key, wished *wish) *envelope.Response {
	if a.Managers == WriteAccessManages || !wished.readAccess || key.Access&authn.Read != 0 {
		return nil
	}
	return noReadAccessToGive
}

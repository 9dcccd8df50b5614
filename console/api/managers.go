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

// Managers selects the keys that may create and deactivate keys. All of them need write access.
type Managers string

const (
	// WriteAccessManages selects all keys with write access. They may create keys with any access, as in the Squirrel backend.
	WriteAccessManages Managers = "write-access"
	// LabelledManage selects the keys whose APIKey has the label [v1alpha1.LabelManager]. They may create keys with no more than their own
	// access. Unknown values mean the same.
	LabelledManage Managers = "labelled"
)

var noReadToGrant = envelope.NewError(http.StatusForbidden,
	"This key has no read access, so it may not create a key with read access: create a key with write access only, or use a key with both.")

// denyManagement returns nil if a key may create and deactivate keys, or else the response. The labels are in the KeyCache, because the
// Keyring holds only what checks need.
func (h *Handler) denyManagement(key *authn.Key) *envelope.Response {
	if h.Managers == WriteAccessManages {
		return nil
	}
	switch e := h.KeyCache.find(key.UID); {
	case e == nil: // the key was deleted after the check
		return h.denials.For(authn.Verdict{Decision: authn.Unauthenticated})
	case !e.manager:
		return envelope.NewError(http.StatusForbidden, fmt.Sprintf("This key may not create or deactivate keys: use a key that may, or "+
			"allow it for this one: kubectl label apikey %s --namespace=%s %s=true", key.Name, key.Namespace, v1alpha1.LabelManager))
	default:
		return nil
	}
}

// denyAccess returns nil if a key may create a key with the requested access, or else the response. The route has checked write access.
func (h *Handler) denyAccess(key *authn.Key, requested *createRequest) *envelope.Response {
	if h.Managers == WriteAccessManages || !requested.readAccess || key.Access&authn.Read != 0 {
		return nil
	}
	return noReadToGrant
}

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

// Managers selects the keys that may create, change, rotate and deactivate keys. All of them need write access.
type Managers string

const (
	// WriteAccessManages selects all keys with write access. They may give any access, as in the Squirrel backend.
	WriteAccessManages Managers = "write-access"
	// LabelledManage selects the keys whose APIKey has the label [v1alpha1.LabelManager]. They may give no more than their own access.
	// Unknown values mean the same.
	LabelledManage Managers = "labelled"
)

var noReadToGrant = envelope.NewError(http.StatusForbidden,
	"This key has no read access, so it may not create a key with read access: create a key with write access only, or use a key with both.")

var noReadToExtend = envelope.NewError(http.StatusForbidden,
	"This key has no read access, so it may neither give another key read access nor let one that has it expire later: use a key with both.")

var noReadToRotate = envelope.NewError(http.StatusForbidden,
	"This key has no read access, so it may not rotate the token of a key that has it: use a key with both.")

// denyManagement returns nil if a key may create, change, rotate and deactivate keys, or else the response. The labels are in the KeyCache,
// because the Keyring holds only what checks need.
func (h *Handler) denyManagement(key *authn.Key) *envelope.Response {
	if key.Access&authn.Write == 0 {
		return h.denials.For(authn.Verdict{Decision: authn.Forbidden, Reason: authn.ReasonNoWriteAccess})
	}
	if h.Managers == WriteAccessManages {
		return nil
	}
	switch e := h.KeyCache.find(key.UID); {
	case e == nil: // the key was deleted after the check
		return h.denials.For(authn.Verdict{Decision: authn.Unauthenticated})
	case !e.manager:
		return envelope.NewError(http.StatusForbidden, fmt.Sprintf("This key may not create, change, rotate or deactivate keys: use a key "+
			"that may, or allow it for this one: kubectl label apikey %s --namespace=%s %s=true --overwrite",
			key.Name, key.Namespace, v1alpha1.LabelManager))
	default:
		return nil
	}
}

// mayGiveReadAccess reports whether a manager may give read access to other keys. All managers have write access.
func (h *Handler) mayGiveReadAccess(manager *authn.Key) bool {
	return h.Managers == WriteAccessManages || manager.Access&authn.Read != 0
}

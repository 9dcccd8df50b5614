// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"squirrel.dev/apikey-operator/internal/keyclient"
)

// cleanupInterval is the time between two searches for unconfirmed keys.
const cleanupInterval = 5 * time.Second

// EndUnconfirmed deactivates keys whose creation through a console was interrupted, so that no client has their token, until ctx is done.
// Several consoles may do so at the same time. It returns no error.
func (h *Handler) EndUnconfirmed(ctx context.Context) error {
	wait.UntilWithContext(ctx, h.endUnconfirmed, cleanupInterval)
	return nil
}

func (h *Handler) endUnconfirmed(ctx context.Context) {
	for _, e := range h.KeyCache.filter(func(e *entry) bool { return e.unconfirmed && !e.retired() }) {
		ended, err := keyclient.EndUnconfirmed(ctx, h.Client, h.Namespace, e.Name, types.UID(e.id), h.APIServerTime)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.Log.Warn("Deactivating a key whose creation was interrupted failed, retrying", "keyID", e.id, "err", err)
		case ended:
			h.Log.Warn("Deactivated a key whose creation was interrupted: no client has its token", "keyID", e.id)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"squirrel.dev/apikey-operator/api/token"
)

// Use is the last granted check of a token.
type Use struct {
	// Namespace and Name of the APIKey.
	Namespace, Name string
	// Digest of the token.
	Digest *token.Digest
	// Minutes since the check, rounded: 0 means at most one minute.
	Minutes uint32
}

// CountMinutes moves the clock of the last uses until the context is done. Without it, no use is noted. The clock counts the minutes since
// the start, so that a wrong time of the node changes no age.
func (a *Authenticator) CountMinutes(ctx context.Context) error {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	a.minute.advance() // 0 means never
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			a.minute.advance()
		}
	}
}

// Uses yields the tokens whose last use was at most this many minutes ago, in no order.
func (a *Authenticator) Uses(minutes uint32) iter.Seq[Use] {
	return func(yield func(Use) bool) {
		for _, keyring := range a.keys.all() {
			for e := range keyring.store.Load().byToken.all() {
				last, now := e.lastUse.load(), a.minute.now()
				if last == 0 || now-last > minutes {
					continue
				}
				if !yield(Use{Namespace: e.Namespace, Name: e.Name, Digest: &e.digest, Minutes: now - last}) {
					return
				}
			}
		}
	}
}

// minuteCounter counts the minutes since the start of the process. It is 0 until the first one.
type minuteCounter struct{ count atomic.Uint32 }

func (c *minuteCounter) now() uint32 { return c.count.Load() }

func (c *minuteCounter) advance() { c.count.Add(1) }

// lastUse is the minute of the last granted check of a token, or 0. It is not an atomic.Uint32, which must not be copied: an entry is
// copied before the Keyring holds it, and does not change until then.
type lastUse uint32

func (u *lastUse) load() uint32 { return atomic.LoadUint32((*uint32)(u)) }

// moveForward notes a use. It writes at most once a minute, so that processors rarely wait for the cache line.
func (u *lastUse) moveForward(minute uint32) {
	if u.load() < minute {
		atomic.StoreUint32((*uint32)(u), minute)
	}
}

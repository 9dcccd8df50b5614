// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"fmt"
	"time"
)

// MinStaleness is the lowest bound of staleness that makes sense. While nothing changes, the Kubernetes API sends only a bookmark, about
// once a minute, and one may be late. A lower bound would fail in an idle cluster.
const MinStaleness = 2 * time.Minute

// Ready returns nil when requests can be decided, or else an error with the reason and what to do.
func (a *Authenticator) Ready() error {
	switch a.unavailable() {
	case ReasonNotSynced:
		return fmt.Errorf("the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is "+
			"installed, and that this process may list and watch apikeys.keys.squirrel.dev (last error: %s)", a.keys.lastError())
	case ReasonStale:
		return fmt.Errorf("the Kubernetes API has sent nothing for %s, and --max-staleness allows %s: check that it is reachable "+
			"(last error: %s)", a.keys.Staleness(a.now()).Round(time.Second), a.maxStaleness, a.keys.lastError())
	default:
		return nil
	}
}

// unavailable returns the reason why no request can be decided now, or "".
func (a *Authenticator) unavailable() Reason {
	switch {
	case !a.keys.Synced():
		return ReasonNotSynced
	case a.maxStaleness > 0 && a.keys.Staleness(a.now()) > a.maxStaleness:
		return ReasonStale
	default:
		return ""
	}
}

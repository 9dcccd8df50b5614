// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MinStaleness is the lowest bound of staleness that makes sense. While nothing changes, the Kubernetes API sends only a bookmark, about
// once a minute, and one may be late. A lower bound would fail in an idle cluster.
const MinStaleness = 2 * time.Minute

// Ready returns nil when requests can be decided, or else an error with the reasons and what to do.
func (a *Authenticator) Ready() error {
	var problems []error
	isAvailable := false
	for namespace, keyring := range a.keys.all() {
		err := a.problem(keyring)
		if err == nil {
			isAvailable = true
			continue
		}
		if namespace != metav1.NamespaceAll {
			err = fmt.Errorf("namespace %s: %w", namespace, err)
		}
		problems = append(problems, err)
	}
	if isAvailable && a.keys.Synced() {
		return nil
	}
	return errors.Join(problems...)
}

// problem returns an error with the reason why no request for the keys of this Keyring can be decided, or nil.
func (a *Authenticator) problem(keyring *Keyring) error {
	switch a.unavailable(keyring) {
	case ReasonNotSynced:
		return fmt.Errorf("the APIKeys have not been listed yet: check that the Kubernetes API is reachable, that the CRD of APIKey is "+
			"installed, and that this process may list and watch apikeys.keys.squirrel.dev (last error: %s)", keyring.lastError())
	case ReasonStale:
		return fmt.Errorf("the Kubernetes API has sent nothing for %s, and --max-staleness allows %s: check that it is reachable "+
			"(last error: %s)", keyring.Staleness(a.now()).Round(time.Second), a.maxStaleness, keyring.lastError())
	default:
		return nil
	}
}

// unavailable returns the reason why no request for the keys of this Keyring can be decided now, or "". The Keyring is nil for a namespace
// that is not served.
func (a *Authenticator) unavailable(keyring *Keyring) Reason {
	switch {
	case keyring == nil:
		return ReasonNamespaceNotServed
	case !keyring.Synced():
		return ReasonNotSynced
	case a.maxStaleness > 0 && keyring.Staleness(a.now()) > a.maxStaleness:
		return ReasonStale
	default:
		return ""
	}
}

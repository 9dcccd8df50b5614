// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Keyrings has a Keyring for each namespace that is served. It needs no permission for all namespaces, and a problem with the list or watch
// of one namespace affects no other.
type Keyrings struct {
	byNamespace map[string]*Keyring // never changes
}

var _ KeySource = (*Keyrings)(nil)

// NewKeyrings returns Keyrings that are empty and not synced.
func NewKeyrings(namespaces []string) *Keyrings {
	k := &Keyrings{byNamespace: make(map[string]*Keyring, len(namespaces))}
	for _, namespace := range namespaces {
		k.byNamespace[namespace] = NewKeyring()
	}
	return k
}

// Run lists and watches the APIKeys of each namespace until ctx is done, as [Keyring.Run] does.
func (k *Keyrings) Run(ctx context.Context, config *rest.Config) error {
	running, ctx := errgroup.WithContext(ctx)
	for namespace, keyring := range k.byNamespace {
		running.Go(func() error {
			logger := klog.FromContext(ctx).WithValues("namespace", namespace)
			return keyring.Run(klog.NewContext(ctx, logger), config, namespace)
		})
	}
	return running.Wait()
}

// Len returns the number of tokens in all Keyrings, also those of keys that have ended.
func (k *Keyrings) Len() (tokens int) {
	for _, keyring := range k.byNamespace {
		tokens += keyring.Len()
	}
	return tokens
}

// Synced reports whether each Keyring has received a whole list, unless the Kubernetes API refuses to list its namespace: one that was
// deleted, or that withdrew the permission, must not stop the others.
func (k *Keyrings) Synced() bool {
	isAnySynced := false
	for _, keyring := range k.byNamespace {
		if !keyring.Synced() && !keyring.isRefused() {
			return false
		}
		isAnySynced = isAnySynced || keyring.Synced()
	}
	return isAnySynced
}

// Staleness returns the staleness of the Keyring that is the stalest.
func (k *Keyrings) Staleness(now time.Time) (longest time.Duration) {
	for _, keyring := range k.byNamespace {
		longest = max(longest, keyring.Staleness(now))
	}
	return longest
}

func (k *Keyrings) keyringOf(namespace string) *Keyring { return k.byNamespace[namespace] }

func (k *Keyrings) all() iter.Seq2[string, *Keyring] {
	return func(yield func(string, *Keyring) bool) {
		for _, namespace := range slices.Sorted(maps.Keys(k.byNamespace)) {
			if !yield(namespace, k.byNamespace[namespace]) {
				return
			}
		}
	}
}

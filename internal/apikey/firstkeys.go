// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package apikey

import (
	"context"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// largeGroup is the minimum size of a group whose first key is cached. Smaller groups are listed each time.
const largeGroup = 16

// FirstKeys caches the first key, by precedence, of each large group of keys that have an app name or a token hash in common. Without it,
// each of a thousand keys that wait for one app name would read all the others after each change. The zero value is ready to use.
type FirstKeys struct {
	mu     sync.Mutex
	groups map[group]*cachedGroup
}

// cachedGroup is the first key of a group, if one exists. It is a placeholder until a list has completed.
type cachedGroup struct {
	complete bool
	keys     []v1alpha1.APIKey
}

// Invalidate must be called after each event of the cache, with the former and the current state of the key; former is nil after a
// creation, current after a deletion. It drops the groups whose first key may have changed, and reports whether the key belongs to such a
// group or to a group that is not cached.
func (f *FirstKeys) Invalidate(former, current *v1alpha1.APIKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := false
	for _, key := range []*v1alpha1.APIKey{former, current} {
		if key == nil {
			continue
		}
		for _, of := range groupsOf(key) {
			if cached, ok := f.groups[of]; ok && cached.complete && !cached.changesWith(of, key.UID, current) {
				continue
			}
			delete(f.groups, of)
			changed = true
		}
	}
	return changed
}

// changesWith reports whether the key of this UID is the first of the group, or its current state precedes the first.
func (c *cachedGroup) changesWith(of group, uid types.UID, current *v1alpha1.APIKey) bool {
	if slices.ContainsFunc(c.keys, func(first v1alpha1.APIKey) bool { return first.UID == uid }) {
		return true
	}
	if current == nil {
		return false
	}
	first := of.first(of.value, append(slices.Clone(c.keys), *current))
	return first != nil && first.UID == current.UID
}

// ListConflicting returns the same keys as the function [ListConflicting], but only the first key, if one exists, of each large group.
func (f *FirstKeys) ListConflicting(ctx context.Context, reader client.Reader, key *v1alpha1.APIKey) ([]v1alpha1.APIKey, error) {
	return listGroups(key, func(of group) ([]v1alpha1.APIKey, error) { return f.list(ctx, reader, of) })
}

func (f *FirstKeys) list(ctx context.Context, reader client.Reader, of group) ([]v1alpha1.APIKey, error) {
	cached := f.begin(of)
	if cached.complete {
		return cached.keys, nil
	}
	keys, err := of.list(ctx, reader)
	if err != nil || len(keys) < largeGroup {
		f.end(of, cached, nil)
		return keys, err
	}
	listed := &cachedGroup{complete: true}
	if first := of.first(of.value, keys); first != nil {
		listed.keys = []v1alpha1.APIKey{*first}
	}
	f.end(of, cached, listed)
	return listed.keys, nil
}

// begin returns the cached group, or adds a placeholder for a list that starts now. Invalidate drops the placeholder, and end then discards
// the result of the list.
func (f *FirstKeys) begin(of group) *cachedGroup {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cached, ok := f.groups[of]; ok {
		return cached
	}
	if f.groups == nil {
		f.groups = map[group]*cachedGroup{}
	}
	placeholder := &cachedGroup{}
	f.groups[of] = placeholder
	return placeholder
}

// end replaces the placeholder by the result of the list, or removes it if the result is nil.
func (f *FirstKeys) end(of group, placeholder, listed *cachedGroup) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.groups[of] != placeholder:
	case listed == nil:
		delete(f.groups, of)
	default:
		f.groups[of] = listed
	}
}

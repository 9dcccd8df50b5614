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

// many is how many keys have a text in common before it is remembered which of them is the first. Of fewer, all are read each time.
const many = 16

// Leaders remembers which key is the first of the many that have an app name or a hash in common: each of a thousand keys that wait for
// one name would read all the others else, whenever one of them changes. The zero value is ready for use.
type Leaders struct {
	mu    sync.Mutex
	known map[group]*leader
}

// group is the keys of a namespace that have a text in common.
type group struct{ namespace, field, text string }

// leader is the first key of a group, if the group has one. It is not known until it was determined.
type leader struct {
	determined bool
	keys       []v1alpha1.APIKey
}

// first returns the key that v1alpha1.FindConflict finds the same conflicts with as with all of them.
func (by index) first(keys []v1alpha1.APIKey) *v1alpha1.APIKey {
	if by.field == byAppName.field {
		return FirstForName(keys)
	}
	return FirstForHash(keys)
}

// Changed says whether the first key of a group may be another one, or in another state, after a key was changed, created (former is nil)
// or deleted (key is nil). It must be called after each such event, when the cache has seen it.
func (l *Leaders) Changed(former, key *v1alpha1.APIKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := false
	for _, either := range []*v1alpha1.APIKey{former, key} {
		for _, by := range []index{byAppName, byTokenHash} {
			for _, text := range textsOf(by, either) {
				of := group{either.Namespace, by.field, text}
				if known, ok := l.known[of]; ok && known.determined && !known.changesWith(by, either.UID, key) {
					continue
				}
				delete(l.known, of)
				changed = true
			}
		}
	}
	return changed
}

func textsOf(by index, key *v1alpha1.APIKey) []string {
	if key == nil {
		return nil
	}
	return by.texts(key)
}

// changesWith says whether the first key was changed, or may not be the first any more beside a key that was.
func (l *leader) changesWith(by index, changed types.UID, key *v1alpha1.APIKey) bool {
	if slices.ContainsFunc(l.keys, func(first v1alpha1.APIKey) bool { return first.UID == changed }) {
		return true
	}
	if key == nil {
		return false
	}
	first := by.first(append(slices.Clone(l.keys), *key))
	return first != nil && first.UID == key.UID
}

// List returns what the function List does, but of many keys that have a text in common only the first, if there is one.
func (l *Leaders) List(ctx context.Context, reader client.Reader, key *v1alpha1.APIKey) ([]v1alpha1.APIKey, error) {
	var found []v1alpha1.APIKey
	for _, by := range []index{byAppName, byTokenHash} {
		for _, text := range by.texts(key) {
			keys, err := l.list(ctx, reader, by, group{key.Namespace, by.field, text})
			if err != nil {
				return nil, err
			}
			found = append(found, keys...)
		}
	}
	return found, nil
}

func (l *Leaders) list(ctx context.Context, reader client.Reader, by index, of group) ([]v1alpha1.APIKey, error) {
	known := l.begin(of)
	if known.determined {
		return known.keys, nil
	}
	keys, err := by.list(ctx, reader, of.namespace, of.text)
	if err != nil || len(keys) < many {
		l.end(of, known, nil)
		return keys, err
	}
	determined := &leader{determined: true}
	if first := by.first(keys); first != nil {
		determined.keys = []v1alpha1.APIKey{*first}
	}
	l.end(of, known, determined)
	return determined.keys, nil
}

// begin returns what is known of a group. When that is nothing, it leaves a mark: what is determined counts only if no change of a key has
// removed the mark meanwhile.
func (l *Leaders) begin(of group) *leader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.known[of]; ok {
		return known
	}
	if l.known == nil {
		l.known = map[group]*leader{}
	}
	mark := &leader{}
	l.known[of] = mark
	return mark
}

func (l *Leaders) end(of group, mark, determined *leader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.known[of] != mark:
	case determined == nil:
		delete(l.known, of)
	default:
		l.known[of] = determined
	}
}

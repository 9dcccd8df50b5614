// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"cmp"
	"time"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// annotationCreatedAt has the time at which Create was called, with nanoseconds. The creationTimestamp has whole seconds.
const annotationCreatedAt = "keys.squirrel.dev/created-at"

// Position is the position of a key in the lists of its namespace, which are in the order of creation. It needs no key of that position.
type Position struct {
	// CreatedAt is the creationTimestamp, in seconds since 1970.
	CreatedAt int64
	// CreatedAtNanos orders the keys that were created in one second, in nanoseconds since 1970. It is 0 for a key that Create did not create.
	CreatedAtNanos int64
	// Name is the metadata.name.
	Name string
}

// PositionOf returns the position of a key.
func PositionOf(key *v1alpha1.APIKey) Position {
	p := Position{CreatedAt: key.CreationTimestamp.Unix(), Name: key.Name}
	if created, err := time.Parse(time.RFC3339Nano, key.Annotations[annotationCreatedAt]); err == nil {
		p.CreatedAtNanos = created.UnixNano()
	}
	return p
}

// Compare returns a negative number if p is before q, and a positive one if p is after q.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.CreatedAt, q.CreatedAt), cmp.Compare(p.CreatedAtNanos, q.CreatedAtNanos), cmp.Compare(p.Name, q.Name))
}

// CompareCreation compares the positions of two keys, which may be in different namespaces.
func CompareCreation(a, b *v1alpha1.APIKey) int {
	return cmp.Or(PositionOf(a).Compare(PositionOf(b)), cmp.Compare(a.Namespace, b.Namespace))
}

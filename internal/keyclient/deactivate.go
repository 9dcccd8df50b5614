// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

var (
	// ErrAlreadyInactive is the error for a key that is deactivated, or whose end is recorded in its status.
	ErrAlreadyInactive = errors.New("the key is already inactive")

	// ErrNotFound is the error when no key has the name and UID.
	ErrNotFound = errors.New("the key does not exist")
)

// Deactivate deactivates the key with this name and UID, and returns its new state. The client must not read from a cache. Of concurrent
// calls one succeeds; the others return ErrAlreadyInactive.
func Deactivate(ctx context.Context, c client.Client, namespace, name string, uid types.UID) (*v1alpha1.APIKey, error) {
	key, err := Update(ctx, c, namespace, name, uid, func(key *v1alpha1.APIKey) error {
		key.Spec.Active = new(false)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("deactivate APIKey %q: %w", name, err)
	}
	return key, nil
}

// Update changes the key with this name and UID, and returns its new state. The client must not read from a cache. The function change is
// called again after a concurrent change of the key. Update returns its error as it is, ErrAlreadyInactive for a key that has ended, and an
// [*OutcomeUnknownError] when the change may have been made.
func Update(
	ctx context.Context, c client.Client, namespace, name string, uid types.UID, change func(*v1alpha1.APIKey) error,
) (*v1alpha1.APIKey, error) {
	var key *v1alpha1.APIKey
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		key = &v1alpha1.APIKey{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, key); err != nil {
			return err
		}
		switch {
		case key.UID != uid:
			return ErrNotFound
		case apikey.IsRetired(key):
			return ErrAlreadyInactive
		}
		before := key.DeepCopy()
		if err := change(key); err != nil {
			return err
		}
		return write(ctx, func(ctx context.Context) error {
			return c.Patch(ctx, key, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		})
	})
	switch {
	case err == nil:
		return key, nil
	case apierrors.IsNotFound(err) && !IsDenied(err):
		err = ErrNotFound
	}
	return nil, err
}

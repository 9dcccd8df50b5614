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
	// ErrAlreadyInactive says that a key is not to be deactivated: it was before, or its expiry is on record.
	ErrAlreadyInactive = errors.New("the key is already inactive")

	// ErrGone says that there is no key of that name and UID any more.
	ErrGone = errors.New("the key does not exist any more")
)

// Deactivate ends the key of this name and UID for good, and returns it as it is then. The client must read live. Of several that do so
// at once, one succeeds; the others get ErrAlreadyInactive. The error is ErrGone when there is no such key.
func Deactivate(ctx context.Context, c client.Client, namespace, name string, uid types.UID) (*v1alpha1.APIKey, error) {
	var key *v1alpha1.APIKey
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		key = &v1alpha1.APIKey{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, key); err != nil {
			return err
		}
		switch {
		case key.UID != uid:
			return ErrGone
		case apikey.IsRetired(key):
			return ErrAlreadyInactive
		}
		before := key.DeepCopy()
		key.Spec.Active = new(false)
		return c.Patch(ctx, key, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
	switch {
	case err == nil:
		return key, nil
	case apierrors.IsNotFound(err):
		err = ErrGone
	}
	return nil, fmt.Errorf("deactivate APIKey %q: %w", name, err)
}

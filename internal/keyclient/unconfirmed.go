// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// annotationUnconfirmed marks a key whose token its creator has not handed over yet. If the creator is killed, no client has the token.
const annotationUnconfirmed = "keys.squirrel.dev/unconfirmed"

// ConfirmTimeout is how long a key may be unconfirmed. It is longer than a creation takes.
const ConfirmTimeout = time.Minute

// IsUnconfirmed reports whether the creator of the key has not confirmed it. The annotation has no effect on a key whose token the
// controller mints: its creator does not hand it over.
func IsUnconfirmed(key *v1alpha1.APIKey) bool {
	_, marked := key.Annotations[annotationUnconfirmed]
	return marked && key.Spec.TokenHash != ""
}

// Confirm confirms a key that was created with CreateOptions.Unconfirmed, and returns its new state. Its creator calls it before it hands
// over the token. The error is ErrAlreadyInactive if EndUnconfirmed was faster.
func Confirm(ctx context.Context, c client.Client, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	confirmed, err := Update(ctx, c, key.Namespace, key.Name, key.UID, func(key *v1alpha1.APIKey) error {
		delete(key.Annotations, annotationUnconfirmed)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("confirm APIKey %q: %w", key.Name, err)
	}
	return confirmed, nil
}

// errNotDue is the reason not to end a key.
var errNotDue = errors.New("the key is confirmed, or may still be")

// EndUnconfirmed deactivates the key with this name and UID if it has been unconfirmed for longer than ConfirmTimeout, and reports whether
// it did. The clock is that of the API server, as known after a response of it.
func EndUnconfirmed(
	ctx context.Context, c client.Client, namespace, name string, uid types.UID, now func() time.Time,
) (ended bool, err error) {
	_, err = Update(ctx, c, namespace, name, uid, func(key *v1alpha1.APIKey) error {
		if !IsUnconfirmed(key) || now().Sub(key.CreationTimestamp.Time) <= ConfirmTimeout {
			return errNotDue
		}
		key.Spec.Active = new(false)
		return nil
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errNotDue), errors.Is(err, ErrNotFound), errors.Is(err, ErrAlreadyInactive):
		return false, nil
	default:
		return false, fmt.Errorf("end the unconfirmed APIKey %q: %w", name, err)
	}
}

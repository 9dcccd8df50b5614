// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keyclient is what clients of the Kubernetes API do with APIKeys: create one with a token of their own minting, deactivate one,
// tell what it is. The management API and the command line tool share it.
package keyclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// answerTimeout bounds the calls that are made whatever becomes of the caller: they begin or remove what must not be left behind.
const answerTimeout = 10 * time.Second

// CreateOptions says what key to create.
type CreateOptions struct {
	Namespace   string
	AppName     string
	ReadAccess  bool
	WriteAccess bool
	// ExpiresAt is optional.
	ExpiresAt *metav1.Time
	// Secret, if not nil, leaves minting to the controller, which hands the token over in this Secret.
	Secret *v1alpha1.TokenSecret
	// Labels and Annotations of the object.
	Labels, Annotations map[string]string
}

// CreateResult is a key that was created.
type CreateResult struct {
	Key *v1alpha1.APIKey
	// Token is the plaintext, which nobody else has; empty when the controller mints it.
	Token string
}

// Create creates a key and returns when it is accepted, at the latest when ctx is done. The token is minted here, and only its hash is
// sent. The client must read live. On any error nothing is left of the key, unless the error is also a [*CleanupError].
//
// The error is a [*v1alpha1.Conflict] when another key holds the app name, and a [*NotAcceptedError] when ctx was done first.
func Create(ctx context.Context, c client.WithWatch, creation CreateOptions) (*CreateResult, error) {
	created, err := CreateNoWait(ctx, c, creation)
	if err != nil {
		return nil, err
	}
	accepted, err := AwaitAccepted(ctx, c, created.Key)
	if err != nil {
		return nil, errors.Join(err, Remove(ctx, c, created.Key))
	}
	created.Key = accepted
	return created, nil
}

// CreateNoWait does what Create does, but does not wait: the controller may still refuse the key.
func CreateNoWait(ctx context.Context, c client.Client, creation CreateOptions) (*CreateResult, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	key, minted := newKey(creation)
	// The answer is awaited even if the caller is gone: a call that was cancelled may take effect all the same.
	calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	err := c.Create(calling, key)
	if err == nil {
		return &CreateResult{Key: key, Token: minted}, nil
	}
	if conflict := apikey.ConflictIn(err); conflict != nil {
		return nil, conflict
	}
	err = fmt.Errorf("create APIKey %q: %w", key.Name, err)
	if !wasRefused(err) {
		err = errors.Join(err, removeUnanswered(ctx, c, key))
	}
	return nil, err
}

// newKey returns the object to be created, and the token if it is minted here.
func newKey(creation CreateOptions) (key *v1alpha1.APIKey, minted string) {
	key = &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   creation.Namespace,
			Name:        newName(creation.AppName),
			Labels:      creation.Labels,
			Annotations: creation.Annotations,
		},
		Spec: v1alpha1.APIKeySpec{
			AppName:     creation.AppName,
			ReadAccess:  creation.ReadAccess,
			WriteAccess: creation.WriteAccess,
			ExpiresAt:   creation.ExpiresAt,
			Secret:      creation.Secret,
		},
	}
	if creation.Secret == nil {
		minted = token.New()
		key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(minted), token.Hint(minted)
	}
	return key, minted
}

// wasRefused says whether the API server answered that it will not do what it was asked to.
func wasRefused(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code >= http.StatusBadRequest && status.Status().Code < http.StatusInternalServerError
}

// removeUnanswered deletes the key if it was created after all, although the API server's answer does not say so.
func removeUnanswered(ctx context.Context, c client.Client, key *v1alpha1.APIKey) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	found := &v1alpha1.APIKey{}
	err := c.Get(ctx, client.ObjectKeyFromObject(key), found)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return &CleanupError{Namespace: key.Namespace, Name: key.Name, Err: err}
	default:
		return Remove(ctx, c, found) // the name has enough random bits to be ours
	}
}

// Remove deletes this very object, also when ctx is done. The error is a [*CleanupError].
func Remove(ctx context.Context, c client.Client, key *v1alpha1.APIKey) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	err := c.Delete(ctx, key, client.Preconditions{UID: &key.UID})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // a conflict: another object has the name now
		return &CleanupError{Namespace: key.Namespace, Name: key.Name, Err: err}
	}
	return nil
}

// CleanupError says that a key, whose token nobody has, may not have been removed again.
type CleanupError struct {
	Namespace, Name string
	// Err is what the removal failed with.
	Err error
}

func (e *CleanupError) Error() string {
	return fmt.Sprintf("APIKey %q in namespace %q could not be removed again, and nobody has its token: delete it: %v",
		e.Name, e.Namespace, e.Err)
}

// Unwrap returns what the removal failed with.
func (e *CleanupError) Unwrap() error { return e.Err }

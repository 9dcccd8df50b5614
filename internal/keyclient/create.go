// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// requestTimeout bounds the requests that do not end with the context of the caller, because a key could be left behind.
const requestTimeout = 10 * time.Second

// CreateOptions describe the key to create.
type CreateOptions struct {
	Namespace string
	// Name is the metadata.name. By default, it is derived from AppName and unique.
	Name        string
	AppName     string
	ReadAccess  bool
	WriteAccess bool
	// ExpiresAt is optional.
	ExpiresAt *metav1.Time
	// Secret, if not nil, makes the controller mint the token and hand it over in this Secret.
	Secret *v1alpha1.TokenSecret
	// Labels and Annotations of the APIKey.
	Labels, Annotations map[string]string
	// Unconfirmed marks the key, so that EndUnconfirmed ends it unless its creator confirms it in time.
	Unconfirmed bool
}

// CreateResult is a key that was created.
type CreateResult struct {
	Key *v1alpha1.APIKey
	// Token is the plaintext, which is stored nowhere. It is empty when the controller mints the token.
	Token string
}

// Create creates a key and waits until it is accepted. It mints the token and sends only the hash, unless options.Secret is set. The client
// must not read from a cache. On an error it deletes the key; a [*CleanupError] says that this failed.
//
// The error is an [*apikey.Conflict] when the controller stalls the key, because another key has the app name, and a [*NotAcceptedError]
// when ctx is done first.
func Create(ctx context.Context, c client.WithWatch, options CreateOptions) (*CreateResult, error) {
	created, err := CreateNoWait(ctx, c, options)
	if err != nil {
		return nil, err
	}
	accepted, err := WaitUntilAccepted(ctx, c, created.Key)
	if err != nil {
		return nil, errors.Join(err, Delete(ctx, c, created.Key))
	}
	created.Key = accepted
	return created, nil
}

// CreateNoWait creates a key like Create, but does not wait: the controller may still stall the key.
func CreateNoWait(ctx context.Context, c client.Client, options CreateOptions) (*CreateResult, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	key, minted := NewKey(options)
	// Without the cancellation of ctx: a request that is cancelled may still create the key.
	requestCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	err := write(requestCtx, func(ctx context.Context) error { return c.Create(ctx, key) })
	if err == nil {
		return &CreateResult{Key: key, Token: minted}, nil
	}
	err = fmt.Errorf("create APIKey %q: %w", key.Name, err)
	if unknown := (*OutcomeUnknownError)(nil); errors.As(err, &unknown) {
		err = errors.Join(err, deleteSent(ctx, c, key))
	}
	return nil, err
}

// NewKey returns the object to create, and the token unless the controller mints it.
func NewKey(options CreateOptions) (key *v1alpha1.APIKey, minted string) {
	annotations := map[string]string{annotationCreatedAt: time.Now().UTC().Format(time.RFC3339Nano)}
	maps.Copy(annotations, options.Annotations)
	if options.Unconfirmed {
		annotations[annotationUnconfirmed] = "true"
	}
	key = &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   options.Namespace,
			Name:        cmp.Or(options.Name, newName(options.AppName)),
			Labels:      options.Labels,
			Annotations: annotations,
		},
		Spec: v1alpha1.APIKeySpec{
			AppName:     options.AppName,
			ReadAccess:  options.ReadAccess,
			WriteAccess: options.WriteAccess,
			ExpiresAt:   options.ExpiresAt,
			Secret:      options.Secret,
		},
	}
	if options.Secret == nil {
		minted = token.New()
		key.Spec.TokenHash, key.Spec.TokenHint = token.Hash(minted), token.Hint(minted)
	}
	return key, minted
}

// deleteSent deletes the key that a request may have created although its response was lost. The name alone does not identify the key,
// because the caller may have chosen the name of an existing one.
func deleteSent(ctx context.Context, c client.Client, sent *v1alpha1.APIKey) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	found := &v1alpha1.APIKey{}
	err := c.Get(ctx, client.ObjectKeyFromObject(sent), found)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return &CleanupError{Namespace: sent.Namespace, Name: sent.Name, Err: err}
	case found.Spec.TokenHash != sent.Spec.TokenHash || !containsAll(found.Annotations, sent.Annotations):
		return nil
	default:
		return Delete(ctx, c, found)
	}
}

// containsAll reports whether a map contains all entries of another one.
func containsAll(all, some map[string]string) bool {
	for name, value := range some {
		if found, ok := all[name]; !ok || found != value {
			return false
		}
	}
	return true
}

// Delete deletes a key, even when ctx is done, but no other object of that name. A key that does not exist is not an error; any other
// error is a [*CleanupError].
func Delete(ctx context.Context, c client.Client, key *v1alpha1.APIKey) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	err := c.Delete(ctx, key, client.Preconditions{UID: &key.UID})
	isGone := apierrors.IsNotFound(err) || apierrors.IsConflict(err) // a conflict: another object has the name now
	if err != nil && (!isGone || IsDenied(err)) {
		return &CleanupError{Namespace: key.Namespace, Name: key.Name, Err: err}
	}
	return nil
}

// CleanupError is the error when deleting a key has failed, so that a key may be left whose token is lost.
type CleanupError struct {
	Namespace, Name string
	// Err of the deletion.
	Err error
}

func (e *CleanupError) Error() string {
	return fmt.Sprintf("APIKey %q in namespace %q could not be deleted, and its token is lost; delete it with kubectl: %v",
		e.Name, e.Namespace, e.Err)
}

// Unwrap returns the error of the deletion.
func (e *CleanupError) Unwrap() error { return e.Err }

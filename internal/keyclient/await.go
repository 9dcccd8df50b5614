// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// conflictLasts is for how long a conflict must stand before it is believed. Of keys that are created at once, two may each stand back
// behind the other for a moment; if both were given up then, nobody would get the app name.
const conflictLasts = time.Second

// NotAcceptedError says that the wait for a key to be accepted was over before it was.
type NotAcceptedError struct {
	// Name is the key's metadata.name.
	Name string
	// Message is what the controller said of the key last.
	Message string
	// Cause is why the wait was over: context.DeadlineExceeded, or whatever the caller's context was cancelled with.
	Cause error
}

func (e *NotAcceptedError) Error() string {
	if errors.Is(e.Cause, context.DeadlineExceeded) {
		return fmt.Sprintf("APIKey %q was not accepted in time; is the controller running? Its last word: %s", e.Name, e.Message)
	}
	return fmt.Sprintf("APIKey %q was not accepted yet when the wait for it ended: %v", e.Name, e.Cause)
}

// Unwrap returns the cause.
func (e *NotAcceptedError) Unwrap() error { return e.Cause }

// AwaitAccepted returns the key, as it is then, once its token is accepted, at the latest when ctx is done. The key must have been read
// from the API before.
//
// The error is a [*v1alpha1.Conflict] when a person must act first, and a [*NotAcceptedError] when ctx was done and nothing is known to
// stand in the way.
func AwaitAccepted(ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	watcher, err := watchtools.NewRetryWatcherWithContext(ctx, key.ResourceVersion, watching(c, key))
	if err != nil {
		return nil, fmt.Errorf("watch APIKey %q: %w", key.Name, err)
	}
	defer watcher.Stop()
	var conflict *apikey.Conflict
	var conflictLasted <-chan time.Time
	for {
		switch stalled := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionStalled); {
		case apikey.IsRetired(key):
			return nil, fmt.Errorf("APIKey %q ended before it was accepted: %s", key.Name, lastWord(key))
		case apikey.IsIssued(key):
			return key, nil
		case stalled == nil:
			conflict, conflictLasted = nil, nil
		case conflict == nil:
			conflict = &apikey.Conflict{Reason: stalled.Reason, Message: stalled.Message}
			conflictLasted = time.After(conflictLasts)
		}
		select {
		case <-ctx.Done():
			return nil, notAccepted(ctx, key, conflict)
		case <-conflictLasted:
			return nil, conflict
		case event, open := <-watcher.ResultChan():
			if !open { // because ctx is done
				return nil, notAccepted(ctx, key, conflict)
			}
			if key, err = keyIn(event, key); err != nil {
				return nil, err
			}
		}
	}
}

// notAccepted returns why the key was not accepted when ctx was done. A conflict that has not lasted yet is the best that is known then.
func notAccepted(ctx context.Context, key *v1alpha1.APIKey, conflict *apikey.Conflict) error {
	if conflict != nil {
		return conflict
	}
	return &NotAcceptedError{Name: key.Name, Message: lastWord(key), Cause: context.Cause(ctx)}
}

// watching returns what watches this key alone.
func watching(c client.WithWatch, key *v1alpha1.APIKey) cache.WatcherWithContext {
	return &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		return c.Watch(ctx, &v1alpha1.APIKeyList{}, client.InNamespace(key.Namespace),
			client.MatchingFields{metav1.ObjectNameField: key.Name}, &client.ListOptions{Raw: &options})
	}}
}

// keyIn returns the key as the event tells it.
func keyIn(event watch.Event, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	changed, ok := event.Object.(*v1alpha1.APIKey)
	switch {
	case !ok:
		return nil, fmt.Errorf("watch APIKey %q: %w", key.Name, apierrors.FromObject(event.Object))
	case event.Type == watch.Deleted:
		return nil, fmt.Errorf("APIKey %q was deleted before it was accepted", key.Name)
	default:
		return changed, nil
	}
}

// lastWord is what the controller says of the key.
func lastWord(key *v1alpha1.APIKey) string {
	if ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Message
	}
	return "none"
}

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

// conflictDuration is how long a conflict must last before WaitUntilAccepted returns it. Keys that are created at the same time may give
// way to each other for a moment; if all clients gave up then, no key would get the app name.
const conflictDuration = time.Second

// goal is what a wait waits for.
type goal struct {
	// name completes "before", such as "it was accepted".
	name string
	// isReached reports whether the key has reached the goal.
	isReached func(*v1alpha1.APIKey) bool
	// missed returns the error when the context is done before the key in its last state has reached the goal.
	missed func(key *v1alpha1.APIKey, cause error) error
}

// NotAcceptedError is the error of a wait that ended before the key was accepted.
type NotAcceptedError struct {
	// Name is the metadata.name of the key.
	Name string
	// Message is the last message of the key's Ready condition.
	Message string
	// Cause ended the wait: context.DeadlineExceeded, or the cause with which the caller cancelled the context.
	Cause error
}

func (e *NotAcceptedError) Error() string {
	if errors.Is(e.Cause, context.DeadlineExceeded) {
		return fmt.Sprintf("APIKey %q was not accepted in time: check that the controller is running (last status: %s)", e.Name, e.Message)
	}
	return fmt.Sprintf("the wait for APIKey %q to be accepted ended: %v", e.Name, e.Cause)
}

// Unwrap returns the cause.
func (e *NotAcceptedError) Unwrap() error { return e.Cause }

// EndedError is the error of a wait for a key that ended, or was deleted, before it was accepted or its token rotated.
type EndedError struct{ message string }

func (e *EndedError) Error() string { return e.message }

// WaitUntilAccepted waits until the token of a key is accepted, and returns the key in its state then. The key must come from the API.
//
// The error is an [*apikey.Conflict] when the owner must act first, an [*EndedError] when the key can never be accepted, and a
// [*NotAcceptedError] when ctx is done first.
func WaitUntilAccepted(ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey) (*v1alpha1.APIKey, error) {
	return waitUntil(ctx, c, key, goal{name: "it was accepted", isReached: apikey.IsIssued,
		missed: func(key *v1alpha1.APIKey, cause error) error {
			return &NotAcceptedError{Name: key.Name, Message: readyMessage(key), Cause: cause}
		},
	})
}

// waitUntil waits until a key has reached a goal, and returns the key in its state then. The key must come from the API.
func waitUntil(ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey, goal goal) (*v1alpha1.APIKey, error) {
	watcher, err := watchtools.NewRetryWatcherWithContext(ctx, key.ResourceVersion, watcherOf(c, key))
	if err != nil {
		return nil, fmt.Errorf("watch APIKey %q: %w", key.Name, err)
	}
	defer watcher.Stop()
	var conflict *apikey.Conflict
	var conflictLasted <-chan time.Time
	for {
		switch {
		case apikey.IsRetired(key):
			return nil, &EndedError{fmt.Sprintf("APIKey %q ended before %s: %s", key.Name, goal.name, readyMessage(key))}
		case goal.isReached(key):
			return key, nil
		case !hasConflict(key):
			conflict, conflictLasted = nil, nil
		case conflict == nil:
			ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady)
			conflict = &apikey.Conflict{Reason: ready.Reason, Message: ready.Message}
			conflictLasted = time.After(conflictDuration)
		}
		select {
		case <-ctx.Done():
			return nil, missed(ctx, key, goal, conflict)
		case <-conflictLasted:
			return nil, conflict
		case event, open := <-watcher.ResultChan():
			if !open { // because ctx is done
				return nil, missed(ctx, key, goal, conflict)
			}
			if key, err = keyOf(event, key, goal); err != nil {
				return nil, err
			}
		}
	}
}

// hasConflict reports whether the controller waits for the owner to act, or for another key, since the last change of the spec.
func hasConflict(key *v1alpha1.APIKey) bool {
	return key.Status.ObservedGeneration >= key.Generation &&
		(meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionStalled) || apikey.WaitsForHolder(key))
}

// missed returns the error of a wait that ctx ended. It is the conflict, if there is one, even if it has not lasted yet.
func missed(ctx context.Context, key *v1alpha1.APIKey, goal goal, conflict *apikey.Conflict) error {
	if conflict != nil {
		return conflict
	}
	return goal.missed(key, context.Cause(ctx))
}

func watcherOf(c client.WithWatch, key *v1alpha1.APIKey) cache.WatcherWithContext {
	return &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		return c.Watch(ctx, &v1alpha1.APIKeyList{}, client.InNamespace(key.Namespace),
			client.MatchingFields{metav1.ObjectNameField: key.Name}, &client.ListOptions{Raw: &options})
	}}
}

func keyOf(event watch.Event, key *v1alpha1.APIKey, goal goal) (*v1alpha1.APIKey, error) {
	changed, ok := event.Object.(*v1alpha1.APIKey)
	switch {
	case !ok:
		return nil, fmt.Errorf("watch APIKey %q: %w", key.Name, apierrors.FromObject(event.Object))
	case event.Type == watch.Deleted:
		return nil, &EndedError{fmt.Sprintf("APIKey %q was deleted before %s", key.Name, goal.name)}
	default:
		return changed, nil
	}
}

func readyMessage(key *v1alpha1.APIKey) string {
	if ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Message
	}
	return "none"
}

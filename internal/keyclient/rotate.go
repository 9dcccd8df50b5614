// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// RotateOptions describe a rotation.
type RotateOptions struct {
	// Overlap is how long the former token stays accepted. By default, it is that of the key.
	Overlap *time.Duration
	// Now returns the API server's time, as known after a response of it. See kubeapi.Clock.
	Now func() time.Time
}

// RotateResult is the result of a rotation.
type RotateResult struct {
	// Key is the key after the rotation.
	Key *v1alpha1.APIKey
	// Token is the plaintext of the new token, which is stored nowhere. It is empty when the controller mints the token: the one-time Secret
	// has it.
	Token string
	// Until is the time until which the former token is accepted. It is nil if the former token has ended.
	Until *time.Time

	// former is an imported key before the rotation, with spec.rotation as its owner declares it.
	former *v1alpha1.APIKey
}

// RotatingError is the error for a key whose token another client or the controller rotates.
type RotatingError struct{ message string }

func (e *RotatingError) Error() string { return e.message }

// NotRotatedError is the error of a wait that ended before the rotation did.
type NotRotatedError struct {
	// Message is the last message of the key's Reconciling or Ready condition.
	Message string
	// Cause ended the wait: context.DeadlineExceeded, or the cause with which the caller cancelled the context.
	Cause error

	minted bool
}

func (e *NotRotatedError) Error() string {
	what, advice := "the new token was not accepted", "check that the controller is running"
	if e.minted {
		what, advice = "the rotation has not ended", "check that the controller, which will finish it, is running"
	}
	if errors.Is(e.Cause, context.DeadlineExceeded) {
		return fmt.Sprintf("%s in time: %s (last status: %s)", what, advice, e.Message)
	}
	return fmt.Sprintf("%s before the wait ended: %v", what, e.Cause)
}

// Unwrap returns the cause.
func (e *NotRotatedError) Unwrap() error { return e.Cause }

var (
	// ErrNotIssued is the error for a key that has no token yet.
	ErrNotIssued = errors.New("the key is not issued yet")

	// ErrBootstrapKey is the error for a key whose token a console reads from a file.
	ErrBootstrapKey = errors.New("it is the bootstrap key of a console: to rotate it, delete the key file and restart that console")
)

// Rotate rotates the token of a key, and waits until the new token is accepted. For a key with spec.tokenHash, it mints the token and sends
// only the hash. For any other key, it requests the rotation, and waits until the one-time Secret has the new token. The key is as its
// caller has last read it: of concurrent calls one succeeds. The client must not read from a cache.
//
// The error is ErrAlreadyInactive, ErrNotIssued or ErrBootstrapKey for a key that cannot be rotated, and a [*RotatingError] when another
// rotation is under way. It is an [*OutcomeUnknownError] when the change may have been made, an [*apikey.Conflict] when the owner must act
// first, and a [*NotRotatedError] when ctx is done first. After these, Rotate declares the former token of an imported key again, because
// the new one is lost; a [*LostTokenError] means that this failed. The controller finishes a rotation that was requested.
func Rotate(ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey, options RotateOptions) (*RotateResult, error) {
	rotate := requestRotation
	if key.Spec.TokenHash != "" {
		rotate = replaceToken
	}
	result, err := rotate(ctx, c, key, options)
	if err == nil {
		return result, nil
	}
	if errors.Is(err, ErrAlreadyInactive) {
		err = fmt.Errorf("%w: create another one", err)
	}
	err = fmt.Errorf("rotate APIKey %q: %w", key.Name, err)
	if result != nil {
		err = errors.Join(err, UndoRotation(ctx, c, result))
	}
	return nil, err
}

// requestRotation rotates the token of a key by a request to the controller, which mints the new one.
func requestRotation(ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey, options RotateOptions) (*RotateResult, error) {
	requested, err := Update(ctx, c, key.Namespace, key.Name, key.UID, func(current *v1alpha1.APIKey) error {
		if err := checkRotatable(key, current, options); err != nil {
			return err
		}
		request := &v1alpha1.RotationRequest{At: requestTime(current, options.Now()), Overlap: durationOf(options.Overlap)}
		rotationOf(current).Request = request
		return nil
	})
	if err != nil {
		return nil, err
	}
	at := requested.Spec.Rotation.Request.At
	rotated, err := waitUntilRotated(ctx, c, requested, func(key *v1alpha1.APIKey) bool {
		handled := key.Status.RotationHandled
		return handled != nil && !handled.Before(&at) && apikey.ClaimOf(key) == nil
	})
	if err != nil {
		return nil, err
	}
	return &RotateResult{Key: rotated, Until: endOf(apikey.NewestToken(requested).Hash, rotated)}, nil
}

// requestTime returns the time of a request for a rotation now. The controller handles only a request that is later than the last one.
// The clocks of two API servers may differ.
func requestTime(key *v1alpha1.APIKey, now time.Time) metav1.Time {
	at := metav1.NewTime(now.Truncate(time.Second))
	for _, earlier := range []*metav1.Time{key.Status.RotationHandled, apikey.NewestToken(key).NotBefore} {
		if earlier != nil && !earlier.Before(&at) {
			at = metav1.NewTime(earlier.Add(time.Second))
		}
	}
	return at
}

// replaceToken rotates the token of a key by another spec.tokenHash. If it returns an error and a result, the key may have the new hash.
func replaceToken(ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey, options RotateOptions) (*RotateResult, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	result := &RotateResult{Token: token.New()}
	changed, err := updateUncancelled(ctx, c, key, func(current *v1alpha1.APIKey) error {
		if err := checkRotatable(key, current, options); err != nil {
			return err
		}
		result.former = current.DeepCopy()
		current.Spec.TokenHash, current.Spec.TokenHint = token.Hash(result.Token), token.Hint(result.Token)
		if options.Overlap != nil {
			rotationOf(current).Overlap = durationOf(options.Overlap)
		}
		return nil
	})
	switch unknown := (*OutcomeUnknownError)(nil); {
	case errors.As(err, &unknown):
		return result, err
	case err != nil:
		return nil, err
	}
	rotated, err := waitUntilRotated(ctx, c, changed, func(key *v1alpha1.APIKey) bool {
		return apikey.IsIssued(key) && apikey.NewestToken(key).Hash == token.Hash(result.Token)
	})
	if err != nil {
		return result, err
	}
	result.Key = restoreOverlap(ctx, c, result.former, rotated)
	result.Until = endOf(apikey.NewestToken(result.former).Hash, result.Key)
	return result, nil
}

// UndoRotation declares the former token of an imported key again, even when ctx is done. The caller of Rotate calls it if it cannot hand
// over the new token. It does nothing if the key has ended, or declares yet another token. An error is a [*LostTokenError].
func UndoRotation(ctx context.Context, c client.Client, result *RotateResult) error {
	if result.Token == "" {
		return nil
	}
	former, errReplaced := result.former, errors.New("the key declares another token")
	_, err := updateUncancelled(ctx, c, former, func(current *v1alpha1.APIKey) error {
		if current.Spec.TokenHash != token.Hash(result.Token) {
			return errReplaced
		}
		current.Spec.TokenHash, current.Spec.TokenHint = former.Spec.TokenHash, former.Spec.TokenHint
		current.Spec.Rotation = former.Spec.Rotation
		return nil
	})
	switch {
	case err == nil, errors.Is(err, errReplaced), errors.Is(err, ErrNotFound), errors.Is(err, ErrAlreadyInactive):
		return nil
	default:
		return &LostTokenError{Name: former.Name, Err: err}
	}
}

// LostTokenError is the error when a key may have a new token that is lost, because declaring the former one again has failed.
type LostTokenError struct {
	Name string
	// Err of the change.
	Err error
}

func (e *LostTokenError) Error() string {
	return fmt.Sprintf("APIKey %q may have a new token, which is lost, and the former token may end: rotate the key again: %v", e.Name, e.Err)
}

// Unwrap returns the error of the change.
func (e *LostTokenError) Unwrap() error { return e.Err }

// restoreOverlap declares the former overlap of a key again, if it was shortened for a rotation. The end of the former token is on record,
// and stays. If the overlap was extended, that end is later than the former overlap allows, so the overlap stays. It stays on an error too.
func restoreOverlap(ctx context.Context, c client.WithWatch, former, rotated *v1alpha1.APIKey) *v1alpha1.APIKey {
	if apikey.OverlapOf(rotated) >= apikey.OverlapOf(former) {
		return rotated
	}
	restored, err := updateUncancelled(ctx, c, rotated, func(current *v1alpha1.APIKey) error {
		current.Spec.Rotation = former.Spec.Rotation
		return nil
	})
	if err != nil {
		return rotated
	}
	return restored
}

// updateUncancelled is [Update] without the cancellation of ctx: a request that is cancelled may still have its effect.
func updateUncancelled(
	ctx context.Context, c client.Client, key *v1alpha1.APIKey, change func(*v1alpha1.APIKey) error,
) (*v1alpha1.APIKey, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	return Update(ctx, c, key.Namespace, key.Name, key.UID, change)
}

// checkRotatable returns the reason why the token of a key in its current state cannot be rotated. The caller has seen it earlier.
func checkRotatable(seen, current *v1alpha1.APIKey, options RotateOptions) error {
	now := options.Now()
	endsWait := options.Overlap != nil && *options.Overlap == 0 && waitsForRoom(current, now)
	switch former := apikey.NewestToken(seen); {
	case current.Labels[v1alpha1.LabelBootstrap] == "true":
		return ErrBootstrapKey
	case !apikey.IsIssued(current):
		return fmt.Errorf("%w: %s", ErrNotIssued, readyMessage(current))
	case former != nil && former.Hash != apikey.NewestToken(current).Hash:
		return &RotatingError{"another client has rotated the token at the same time: rotate it again only if that is intended"}
	case apikey.IsRotationPending(current, requestTime(current, now).Time) && !canReplaceHash(current) && !endsWait:
		return newRotatingError(current)
	default:
		return nil
	}
}

// newRotatingError returns the error for a key whose rotation is due or under way, or is stuck until its owner acts.
func newRotatingError(key *v1alpha1.APIKey) error {
	if hasConflict(key) {
		return &RotatingError{"the controller cannot finish an earlier rotation yet: " + readyMessage(key)}
	}
	return &RotatingError{"the token is being rotated already: wait until that has ended (status: " + rotationMessage(key) + ")"}
}

// waitsForRoom reports whether the rotation that is due waits until a superseded token ends. A rotation without overlap does not wait.
func waitsForRoom(key *v1alpha1.APIKey, now time.Time) bool {
	return apikey.ClaimOf(key) == nil && !apikey.HasRoomForClaim(key, now)
}

// canReplaceHash reports whether the key declares a token hash that it cannot get.
func canReplaceHash(key *v1alpha1.APIKey) bool { return key.Spec.TokenHash != "" && hasConflict(key) }

// WaitUntilRotated waits until the key has no rotation that is due or under way, and returns the key in its state then. The function now is
// as in RotateOptions. The errors are those of [Rotate].
func WaitUntilRotated(
	ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey, now func() time.Time,
) (*v1alpha1.APIKey, error) {
	return waitUntilRotated(ctx, c, key, func(key *v1alpha1.APIKey) bool { return !apikey.IsRotationPending(key, now()) })
}

func waitUntilRotated(
	ctx context.Context, c client.WithWatch, key *v1alpha1.APIKey, isRotated func(*v1alpha1.APIKey) bool,
) (*v1alpha1.APIKey, error) {
	return waitUntil(ctx, c, key, goal{name: "its token was rotated", isReached: isRotated,
		missed: func(key *v1alpha1.APIKey, cause error) error {
			return &NotRotatedError{Message: rotationMessage(key), Cause: cause, minted: key.Spec.TokenHash == ""}
		},
	})
}

// rotationMessage returns the message of the status about the rotation.
func rotationMessage(key *v1alpha1.APIKey) string {
	if reconciling := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReconciling); reconciling != nil {
		return reconciling.Message
	}
	return readyMessage(key)
}

// endOf returns the time until which the former token of a rotated key is accepted, or nil if it has ended.
func endOf(former string, key *v1alpha1.APIKey) *time.Time {
	if until := apikey.SupersededUntil(key, former); until != nil {
		return &until.Time
	}
	return nil
}

// rotationOf returns the spec.rotation of a key, which it adds if it is absent.
func rotationOf(key *v1alpha1.APIKey) *v1alpha1.Rotation {
	if key.Spec.Rotation == nil {
		key.Spec.Rotation = &v1alpha1.Rotation{}
	}
	return key.Spec.Rotation
}

func durationOf(d *time.Duration) *metav1.Duration {
	if d == nil {
		return nil
	}
	return &metav1.Duration{Duration: *d}
}

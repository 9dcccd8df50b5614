// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// The new token of a rotation is accepted first and handed over later: a client that reads it from the Secret before all authenticators
// accept it would be refused.
const (
	// acceptanceDelay is the time from the claim of a new token, with which it is accepted, until it is handed over.
	acceptanceDelay = 5 * time.Second

	// handoverTimeout is the time from the claim until which its process may hand over the token. Later it must renew the claim first. It is
	// shorter than claimLifetime by the difference of the clocks, as ReconcileTimeout is.
	handoverTimeout = ReconcileTimeout

	// minHandoverTime is the time that must remain for the handover after acceptanceDelay. If less remains, the controller renews the claim.
	minHandoverTime = 2 * time.Second
)

var (
	// errClaimWritten means that the new token is accepted, and that the status has not changed since the claim was written.
	errClaimWritten = errors.New("the claim of the new token was written")

	// errHandoverScheduled means that the new token is accepted, and will be handed over after acceptanceDelay.
	errHandoverScheduled = errors.New("the handover of the new token is scheduled")

	// errTooManyTokens means that the status has no room for another token before a superseded one ends.
	errTooManyTokens = errors.New("the key has too many tokens")

	// errRotationMayBeEarly means that a rotation is due only according to a clock that cannot be trusted.
	errRotationMayBeEarly = errors.New("the rotation of this key may not be due: the clock cannot be trusted")
)

// rotate replaces the token of an issued key by another one, or records the reason why it cannot.
func (r *APIKeyReconciler) rotate(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	err := r.replaceToken(ctx, key)
	untilHandover := ctrl.Result{RequeueAfter: soonest(r.rotations.untilHandover(key, r.Now()))}
	switch {
	case errors.Is(err, errClaimWritten):
		return untilHandover, err
	case errors.Is(err, errHandoverScheduled):
		return untilHandover, nil
	case errors.Is(err, errTooManyTokens):
		r.setRotating(key, v1alpha1.ReasonRotating, fmt.Sprintf("Waiting until %s, when a superseded token ends: a key has at most %d tokens. "+
			"To rotate earlier, shorten spec.rotation.overlap. After a leak, rotate with an overlap of 0s, which does not wait.",
			apikey.NextEnd(key).UTC().Format(time.RFC3339), apikey.MaxTokens))
		return ctrl.Result{}, nil // reconcileIssued requeues the key for its next deadline
	case errors.Is(err, errRotationMayBeEarly):
		r.setPending(key, "Waiting until the controller's clock agrees with the API server's: the rotation may not be due yet.")
		return ctrl.Result{RequeueAfter: clockDelay}, nil
	default:
		return r.conclude(ctx, key, err)
	}
}

func (r *APIKeyReconciler) replaceToken(ctx context.Context, key *v1alpha1.APIKey) error {
	if key.Spec.TokenHash != "" {
		return r.replaceImportedToken(ctx, key)
	}
	return r.replaceMintedToken(ctx, key)
}

// replaceImportedToken accepts the token whose hash the key declares. A hash that is on record belongs to the key already. Any other hash
// is claimed and rechecked, as [APIKeyReconciler.claimAndHandOver] describes.
func (r *APIKeyReconciler) replaceImportedToken(ctx context.Context, key *v1alpha1.APIKey) error {
	if apikey.NewestToken(key).Hash == key.Spec.TokenHash {
		dropClaim(key) // of a hash that the key does not declare any more
		return nil
	}
	if apikey.RestoreToken(key, key.Spec.TokenHash, r.timestamp()) {
		return nil
	}
	if !apikey.HasRoomForClaim(key, r.Now()) {
		return errTooManyTokens
	}
	if err := r.checkConflict(ctx, key); err != nil {
		return err
	}
	if _, err := r.claim(ctx, key); err != nil {
		return err
	}
	return r.recheckConflict(ctx, key)
}

// replaceMintedToken mints a token and hands it over, in two reconciles. The first one claims the hash of the token, and so accepts it.
// The second one writes the token to the Secret. In between, the token is in the memory of this process.
func (r *APIKeyReconciler) replaceMintedToken(ctx context.Context, key *v1alpha1.APIKey) error {
	if scheduled, ok := r.rotations.handoverOf(key); ok {
		return r.handOverLater(ctx, key, scheduled)
	}
	if done, err := r.wasHandedOver(ctx, key); done || err != nil {
		return err // done: an earlier controller stopped before it could record the handover
	}
	if err := r.checkClaimIsVoid(ctx, key); err != nil {
		return err
	}
	if !r.isClockTrusted(ctx, key, actionRotate) { // the former token ends by the same clock
		return errRotationMayBeEarly
	}
	if !apikey.HasRoomForClaim(key, r.Now()) {
		return errTooManyTokens
	}
	if err := r.clearSecretName(ctx, key); err != nil {
		return err
	}
	former, begun := key.Status.DeepCopy(), r.Now()
	minted, err := r.claim(ctx, key)
	if err != nil {
		return err
	}
	r.rotations.schedule(key, handover{
		hash: token.Hash(minted), secret: newSecret(key, minted), former: former,
		due: r.Now().Add(acceptanceDelay), end: begun.Add(handoverTimeout),
	})
	return errClaimWritten
}

// newClaim returns the claim of a minted token. The claim of a rotation is accepted: no client has the token yet, and none may read it
// before it is accepted.
func (r *APIKeyReconciler) newClaim(key *v1alpha1.APIKey, minted string) v1alpha1.TokenRecord {
	claim := v1alpha1.TokenRecord{Hash: token.Hash(minted), Hint: token.Hint(minted), ClaimedAt: new(r.timestamp())}
	if apikey.IsIssued(key) {
		claim.NotBefore = new(r.timestamp())
		if request := apikey.DueRequest(key, r.Now()); request != nil {
			claim.Overlap = request.Overlap
		}
		apikey.HandleRequest(key, r.Now())
	}
	return claim
}

// checkAccepted returns a conflict if the key does not accept the token any more: a restore of etcd may have undone the claim. The Secret
// would then hold a token that is refused.
func (r *APIKeyReconciler) checkAccepted(ctx context.Context, key *v1alpha1.APIKey, hash string) error {
	current, err := r.readAgain(ctx, key)
	if err != nil {
		return err
	}
	if claim := apikey.ClaimOf(current); claim == nil || claim.Hash != hash {
		return errKeyChanged(key)
	}
	return nil
}

// handOverLater writes the token of a scheduled handover to the one-time Secret. It removes the claim if the token was not handed over for
// certain. If that is not known, the claim stays: the handover counts as one of another controller.
func (r *APIKeyReconciler) handOverLater(ctx context.Context, key *v1alpha1.APIKey, scheduled handover) error {
	if scheduled.isShort(r.Now()) {
		var err error
		if scheduled, err = r.renewClaim(ctx, key, scheduled); err != nil {
			return err
		}
		if r.Now().Before(scheduled.due) {
			return errClaimWritten
		}
	}
	if !scheduled.isEnded() && r.Now().Before(scheduled.due) {
		return errHandoverScheduled
	}
	if !scheduled.isEnded() {
		if err := r.checkAccepted(ctx, key, scheduled.hash); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, min(secretTimeout, scheduled.end.Sub(r.Now())))
		defer cancel()
		scheduled = r.rotations.record(key, scheduled, r.replaceSecret(ctx, key, scheduled.secret))
	}
	switch err := scheduled.failure; {
	case !isSecretRefused(err):
		return err
	case scheduled.mayBeWritten:
		r.rotations.forgetHandover(key)
		return errHandoverInProgress
	default:
		apikey.RemoveClaim(key)
		key.Status.SecretName, key.Status.RotationHandled = scheduled.former.SecretName, scheduled.former.RotationHandled
		key.Status.NextRotationAt = apikey.NextRotation(key)
		return err
	}
}

// renewClaim writes another claimedAt, so that this process has more time for the handover. The write fails if another controller has
// replaced the claim.
func (r *APIKeyReconciler) renewClaim(ctx context.Context, key *v1alpha1.APIKey, scheduled handover) (handover, error) {
	begun, renewed := r.Now(), key.DeepCopy()
	apikey.ClaimOf(renewed).ClaimedAt = new(r.timestamp())
	if err := r.updateStatus(ctx, renewed); err != nil {
		return handover{}, err
	}
	*key = *renewed
	scheduled.end = begun.Add(handoverTimeout)
	r.rotations.schedule(key, scheduled)
	return scheduled, nil
}

// isSecretRefused reports whether the error means that the token was not written to the Secret, and will not be before something changes.
func isSecretRefused(err error) bool {
	return errors.As(err, new(*apikey.Conflict)) || errors.Is(err, errFormerSecret)
}

// trackRotation records since when a rotation of the key is due, for the metric. A rotation that waits for the end of a superseded token,
// which its owner declared, does not count.
func (r *APIKeyReconciler) trackRotation(key *v1alpha1.APIKey) {
	name, now := client.ObjectKeyFromObject(key), r.Now()
	switch next := apikey.NextRotation(key); {
	case !apikey.IsRotationPending(key, now):
		r.rotations.forget(name)
	case !apikey.HasRoomForClaim(key, now) && apikey.ClaimOf(key) == nil:
		r.rotations.forget(name)
	case next != nil && next.Time.Before(now):
		r.rotations.setDueSince(name, next.Time)
	default:
		r.rotations.setDueSince(name, now)
	}
}

// describeRotation updates the status of an issued key to describe spec.rotation.
func (r *APIKeyReconciler) describeRotation(key *v1alpha1.APIKey) {
	apikey.ShortenOverlaps(key, r.timestamp())
	key.Status.NextRotationAt = apikey.NextRotation(key)
}

// isTokenEnded reports whether a superseded token has ended, and its record must be dropped.
func (r *APIKeyReconciler) isTokenEnded(key *v1alpha1.APIKey) bool {
	end := apikey.NextEnd(key)
	return end != nil && !r.Now().Before(end.Time)
}

// rotationNote returns the note of the event that a key has another token.
func rotationNote(key *v1alpha1.APIKey, superseded string) string {
	if until := apikey.SupersededUntil(key, superseded); until != nil {
		return fmt.Sprintf("The key has a new token. The former one is accepted until %s.", until.UTC().Format(time.RFC3339))
	}
	return "The key has a new token. The former one is no longer accepted."
}

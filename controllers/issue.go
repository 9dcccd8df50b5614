// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

const (
	// formerSecretPatience is how old a key may be until a person is told that the Secret of a former key of its name is still there.
	formerSecretPatience = time.Minute

	// secretTimeout bounds the creation of a Secret. It leaves the reconcile the time to record what became of it.
	secretTimeout = reconcileTimeout - 2*time.Second

	// clockDifference is what the clocks of two controllers may differ by.
	clockDifference = 5 * time.Second

	// claimLifetime is how long a claim is left alone by all but the one who made it, whose calls have ended by then.
	claimLifetime = reconcileTimeout + clockDifference
)

var (
	// errRivalClaim means that another key claims the same app name or hash at this time, and that neither is issued yet.
	errRivalClaim = errors.New("another key claims the same app name or token hash")

	// errHandoverUnderWay means that another controller may be handing over a token of this key at this time.
	errHandoverUnderWay = errors.New("a token of this key may be on its way to its Secret")

	// errClaimMayBeLive means that only a clock that cannot be trusted says that a claim is void.
	errClaimMayBeLive = errors.New("the clock that says that a handover has ended cannot be trusted")

	// errFormerSecret means that the Secret of a former key of the same name is about to be collected.
	errFormerSecret = errors.New("the Secret of a former key of this name is still there")

	// errClaimNotSeen means that the cache lacks the claim that was just written: ClientOptions are not in force.
	errClaimNotSeen = errors.New("the cache of APIKeys has not seen the claim that was just written")
)

// issue hands over the token of a key that has none yet, or says why not.
func (r *APIKeyReconciler) issue(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	err := r.claimAndHandOver(ctx, key)
	var conflict *apikey.Conflict
	switch {
	case err == nil:
		return r.accept(key), nil
	case errors.As(err, &conflict):
		return r.standBack(ctx, key, conflict), nil
	case errors.Is(err, errRivalClaim):
		return r.withdraw(key, rivalClaim, "Waiting for another key with the same app name or token hash to be settled."), nil
	case errors.Is(err, errHandoverUnderWay):
		return r.awaitHandover(key), nil
	case errors.Is(err, errClaimMayBeLive):
		setPending(key, "Waiting for the clocks of the controller and the API server to agree: a handover that was begun may not have ended.")
		r.postpone(key, clockDelay)
		return ctrl.Result{RequeueAfter: clockDelay}, nil
	case errors.Is(err, errFormerSecret):
		return r.withdraw(key, formerSecret,
			fmt.Sprintf("Waiting for Secret %q of a former key of this name to be removed.", secretName(key))), nil
	case wasOvertaken(err):
		return ctrl.Result{}, err
	default:
		setPending(key, fmt.Sprintf("The token could not be handed over yet (%s): the controller tries again.", failureOf(err)))
		return ctrl.Result{}, err
	}
}

// claimAndHandOver hands over a token: hash first, then the token.
//
// Two controllers may work at once, each from a cache that lags behind. What makes that safe is the order of claim and look: every
// key writes its hash (the claim), then looks at the competing keys in a cache that has seen this write, and goes on only when it
// sees no other claim. Of two claims one is the later write, and whoever made it sees the earlier one. A key that went on keeps its
// claim, which becomes its token, so that all who come later see it; nobody else touches the claim of a minted token until whoever made
// it must have stopped.
func (r *APIKeyReconciler) claimAndHandOver(ctx context.Context, key *v1alpha1.APIKey) error {
	if done, err := r.wasHandedOver(ctx, key); done || err != nil {
		return err // done: and then the controller was stopped before it could say so
	}
	if err := r.checkClaimIsVoid(ctx, key); err != nil {
		return err
	}
	if err := r.settle(ctx, key); err != nil {
		return err
	}
	if err := r.clearSecretName(ctx, key); err != nil {
		return err
	}
	minted, err := r.claim(ctx, key)
	if err != nil {
		return err
	}
	if err := r.lookAgain(ctx, key); err != nil {
		return err
	}
	return r.handOver(ctx, key, minted)
}

// checkClaimIsVoid returns errHandoverUnderWay or errClaimMayBeLive while the controller that claimed for the key may still
// hand over its token.
func (r *APIKeyReconciler) checkClaimIsVoid(ctx context.Context, key *v1alpha1.APIKey) error {
	if !isDated(key) {
		return nil
	}
	clockErr := r.CheckClock(ctx) // before Now is used, which goes by what this learns
	switch {
	case r.untilClaimIsVoid(key) > 0:
		return errHandoverUnderWay
	case clockErr != nil:
		r.recordClockWarning(key, actionIssue, clockErr)
		return errClaimMayBeLive
	default:
		return nil
	}
}

// settle returns the conflict when another key holds the app name or the hash, as far as the cache knows. It waits for no write: what the
// cache has not seen yet, lookAgain sees.
func (r *APIKeyReconciler) settle(ctx context.Context, key *v1alpha1.APIKey) error {
	conflict, err := r.findConflict(ctx, key)
	if conflict != nil {
		return conflict
	}
	return err
}

// claim writes the hash of the key's token to its status. It returns the token when it minted one: from here until it is in the
// Secret, it exists in this variable only.
func (r *APIKeyReconciler) claim(ctx context.Context, key *v1alpha1.APIKey) (minted string, err error) {
	claimed := key.DeepCopy()
	if key.Spec.TokenHash != "" {
		claimed.Status.Tokens = []v1alpha1.TokenRecord{{Hash: key.Spec.TokenHash, Hint: key.Spec.TokenHint}}
	} else {
		minted = token.New()
		claimed.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash(minted), Hint: token.Hint(minted), ClaimedAt: new(r.timestamp())}}
		claimed.Status.SecretName = secretName(key)
	}
	setPending(claimed, "Handing over the token.")
	if err := r.updateStatus(ctx, claimed); err != nil {
		return "", err
	}
	if apikey.IsClaimed(key) && minted != "" {
		r.announceMintedAgain(key)
	}
	*key = *claimed
	return minted, nil
}

// lookAgain returns the conflict or errRivalClaim when the key must not go on, from a cache that has seen the key's claim.
func (r *APIKeyReconciler) lookAgain(ctx context.Context, key *v1alpha1.APIKey) error {
	if err := r.awaitClaim(ctx, key); err != nil {
		return err
	}
	others, err := apikey.ListConflicting(ctx, r, key)
	if err != nil {
		return err
	}
	if conflict := apikey.FindConflict(key, others); conflict != nil {
		return conflict
	}
	if rival := apikey.FindConflictingClaim(key, others); rival != nil {
		return errRivalClaim
	}
	return nil
}

// awaitClaim returns when the cache has seen the key's claim, and with it all that was written before. It waits for no other write: a
// consistent list would wait for all that this process has begun.
func (r *APIKeyReconciler) awaitClaim(ctx context.Context, key *v1alpha1.APIKey) error {
	seen := &v1alpha1.APIKey{}
	if err := r.Get(ctx, client.ObjectKeyFromObject(key), seen); err != nil {
		return err
	}
	if seen.UID != key.UID || !apikey.IsClaimed(seen) || seen.Status.Tokens[0].Hash != key.Status.Tokens[0].Hash {
		return errClaimNotSeen
	}
	return nil
}

// handOver writes the minted token to the one-time Secret. A brought token needs none.
func (r *APIKeyReconciler) handOver(ctx context.Context, key *v1alpha1.APIKey, minted string) error {
	if minted == "" {
		return nil
	}
	creation, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	err := r.createSecret(creation, key, minted)
	if apierrors.IsAlreadyExists(err) {
		// By this very call, when its first answer was lost and the client repeated it, or by somebody else meanwhile.
		if done, err := r.wasHandedOver(ctx, key); done || err != nil {
			return err
		}
		if err := r.clearSecretName(creation, key); err != nil {
			return err
		}
		err = r.createSecret(creation, key, minted)
	}
	switch {
	case err == nil:
		return nil
	case wasRefused(err):
		return secretRefused(secretName(key), err)
	default: // the Secret may be there all the same: the claim stays until that is known
		return &writeError{secret: secretName(key), failure: failureOf(err)}
	}
}

// accept makes the token count.
func (r *APIKeyReconciler) accept(key *v1alpha1.APIKey) ctrl.Result {
	key.Status.Tokens[0].NotBefore = new(r.timestamp())
	key.Status.Tokens[0].ClaimedAt = nil
	setIssued(key)
	return ctrl.Result{RequeueAfter: r.untilNextInstant(key)}
}

// standBack gives up the claim, if there is one, until a person has solved the conflict.
func (r *APIKeyReconciler) standBack(ctx context.Context, key *v1alpha1.APIKey, conflict *apikey.Conflict) ctrl.Result {
	dropClaim(key)
	setStalled(key, conflict)
	if waitsForItsSecret(key) {
		return ctrl.Result{RequeueAfter: soonest(r.tryAgain(key, secretUnwritable), r.untilExpiry(key))}
	}
	r.hastenEnd(ctx, client.ObjectKey{Namespace: key.Namespace, Name: conflict.Holder})
	return ctrl.Result{RequeueAfter: soonest(r.untilExpiry(key))} // standingChanged wakes the key when it is the next in line
}

// withdraw gives up the claim, if there is one, to claim again after a delay: what the key waits for goes without a person.
func (r *APIKeyReconciler) withdraw(key *v1alpha1.APIKey, why cause, waiting string) ctrl.Result {
	dropClaim(key)
	setPending(key, waiting)
	return ctrl.Result{RequeueAfter: r.tryAgain(key, why)}
}

// awaitHandover waits until the claim is void. When this controller made the claim, the status says already why it waits.
func (r *APIKeyReconciler) awaitHandover(key *v1alpha1.APIKey) ctrl.Result {
	if !r.retries.canWait(client.ObjectKeyFromObject(key), r.phaseOf(key)) {
		setPending(key, "Waiting for a handover that was begun to end.")
	}
	wait := r.untilClaimIsVoid(key)
	r.postpone(key, wait)
	return ctrl.Result{RequeueAfter: soonest(wait, r.untilExpiry(key))}
}

func dropClaim(key *v1alpha1.APIKey) {
	key.Status.Tokens = nil
	key.Status.SecretName = ""
}

// timestamp is the current instant as the API server stores it.
func (r *APIKeyReconciler) timestamp() metav1.Time {
	return metav1.NewTime(r.Now().Truncate(time.Second))
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	poll "k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

const (
	// formerSecretTimeout is the maximum time for which a key waits for the deletion of a former Secret. Then the Secret counts as a conflict.
	formerSecretTimeout = time.Minute

	// renameTimeout is the age up to which a key waits for its app name or hash without being stalled.
	renameTimeout = 10 * time.Second

	// secretTimeout bounds the creation of a Secret. It leaves the reconcile time to record the result.
	secretTimeout = ReconcileTimeout - 2*time.Second

	// claimReadInterval is the interval of the reads of a claim that was just written.
	claimReadInterval = 10 * time.Millisecond

	// clockDifference is the maximum difference between the clocks of two controllers.
	clockDifference = 5 * time.Second

	// claimLifetime is the time during which only the process that wrote a claim may hand over its token. All calls of that process have ended
	// after it.
	claimLifetime = ReconcileTimeout + clockDifference
)

var (
	// errConflictingClaim means that a key with the same app name or hash has claimed too, and that neither is issued yet.
	errConflictingClaim = errors.New("another key claims the same app name or token hash")

	// errHandoverInProgress means that another controller may be handing over a token of this key.
	errHandoverInProgress = errors.New("a handover of this key may be in progress")

	// errClaimMayBeValid means that a claim is void only according to a clock that cannot be trusted.
	errClaimMayBeValid = errors.New("the claim of this key may be valid: the clock cannot be trusted")

	// errFormerSecret means that the Secret of a key that was deleted or has ended is not deleted yet.
	errFormerSecret = errors.New("the Secret of a former key still exists")

	// errClaimNotSeen means that the cache still lacks the claim that was just written.
	errClaimNotSeen = errors.New("the cache of APIKeys has not seen the claim that was just written")
)

// issue hands over a token to a key that has none, or records the reason why it cannot.
func (r *APIKeyReconciler) issue(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	return r.conclude(ctx, key, r.claimAndHandOver(ctx, key))
}

// conclude records the result of an attempt to hand over a token: that the token is accepted, or why it is not handed over yet.
func (r *APIKeyReconciler) conclude(ctx context.Context, key *v1alpha1.APIKey, err error) (ctrl.Result, error) {
	var conflict *apikey.Conflict
	switch {
	case err == nil:
		return r.accept(key), nil
	case errors.As(err, &conflict):
		return r.stall(ctx, key, conflict), nil
	case errors.Is(err, errConflictingClaim):
		return r.withdraw(key, conflictingClaim, "Waiting for another key that claims the same app name or token hash."), nil
	case errors.Is(err, errHandoverInProgress):
		return r.awaitHandover(key), nil
	case errors.Is(err, errClaimMayBeValid):
		r.setPending(key, "Waiting until the controller's clock agrees with the API server's: an earlier handover may be in progress.")
		r.delay(key, clockDelay)
		return ctrl.Result{RequeueAfter: clockDelay}, nil
	case errors.Is(err, errFormerSecret):
		return r.withdraw(key, formerSecret,
			fmt.Sprintf("Waiting for the deletion of Secret %q, which belongs to a key that was deleted or has ended.", apikey.SecretName(key))), nil
	case isConflict(err):
		return ctrl.Result{}, err
	default:
		r.setPending(key, fmt.Sprintf("The controller could not hand over the token (%s) and retries.", failureOf(err)))
		return ctrl.Result{}, err
	}
}

// claimAndHandOver hands over a token. It writes the hash to the status before it writes the token to a Secret.
//
// Two controllers may do this at the same time, each with a stale cache. The order of writes and reads makes that safe. Each key first
// writes its hash, which is its claim. Then it lists the conflicting keys from a cache that contains this write, and continues only if none
// of them has a claim. Of two claims, one was written later, and the process that wrote it finds the earlier one. A key that continues
// keeps its claim, so that all later lists contain it. No other process replaces the claim of a minted token until claimLifetime has
// passed.
func (r *APIKeyReconciler) claimAndHandOver(ctx context.Context, key *v1alpha1.APIKey) error {
	if done, err := r.wasHandedOver(ctx, key); done || err != nil {
		return err // done: an earlier controller stopped before it could record the handover
	}
	if err := r.checkClaimIsVoid(ctx, key); err != nil {
		return err
	}
	if err := r.checkConflict(ctx, key); err != nil {
		return err
	}
	if r.mayFindSecret(key) {
		if err := r.clearSecretName(ctx, key); err != nil {
			return err
		}
	}
	minted, err := r.claim(ctx, key)
	if err != nil {
		return err
	}
	if err := r.recheckConflict(ctx, key); err != nil {
		return err
	}
	return r.handOver(ctx, key, minted)
}

// mayFindSecret reports whether an earlier attempt to issue the key may have left a Secret or found another one. The first attempt reads no
// Secret before it creates one: the API server refuses that if the name is taken, and the key then drops its claim. Later attempts must
// read first, so that a key whose Secret's name stays taken does not claim each time.
func (r *APIKeyReconciler) mayFindSecret(key *v1alpha1.APIKey) bool {
	return apikey.ClaimOf(key) != nil || waitsForSecret(key) || r.backoffs.waited(key, r.phaseOf(key)) > 0
}

// checkClaimIsVoid returns errHandoverInProgress or errClaimMayBeValid while the controller that wrote the key's claim may still hand over
// its token.
func (r *APIKeyReconciler) checkClaimIsVoid(ctx context.Context, key *v1alpha1.APIKey) error {
	if !hasClaimTime(key) {
		return nil
	}
	clockErr := r.CheckClock(ctx) // before Now, which uses the API server's time that this reads
	switch {
	case r.untilClaimIsVoid(key) > 0:
		return errHandoverInProgress
	case clockErr != nil:
		r.recordClockWarning(key, actionIssue, clockErr)
		return errClaimMayBeValid
	default:
		return nil
	}
}

// checkConflict returns the conflict if, according to the cache, another key holds the app name or the hash. The cache may be stale:
// recheckConflict finds what it has not seen yet.
func (r *APIKeyReconciler) checkConflict(ctx context.Context, key *v1alpha1.APIKey) error {
	conflict, err := r.findConflict(ctx, key)
	if conflict != nil {
		return conflict
	}
	return err
}

// claim writes the hash of the key's token to its status, and returns the token if it minted one. Until the token is in the Secret, it
// exists only in the memory of this process. The key then has all fields of the API server's response, also those that trimKey removes.
func (r *APIKeyReconciler) claim(ctx context.Context, key *v1alpha1.APIKey) (minted string, err error) {
	claimed := key.DeepCopy()
	if key.Spec.TokenHash != "" {
		apikey.Claim(claimed, v1alpha1.TokenRecord{Hash: key.Spec.TokenHash, Hint: key.Spec.TokenHint}, r.timestamp())
	} else {
		minted = token.New()
		apikey.Claim(claimed, r.newClaim(claimed, minted), r.timestamp())
		claimed.Status.SecretName = apikey.SecretName(key)
		claimed.Status.NextRotationAt = apikey.NextRotation(claimed)
	}
	r.setPending(claimed, "Handing over the token.")
	if err := r.updateStatus(ctx, claimed); err != nil {
		return "", err
	}
	if minted != "" && apikey.ClaimOf(key) != nil {
		r.recordReissue(key)
	}
	*key = *claimed
	return minted, nil
}

// recheckConflict returns the conflict or errConflictingClaim if the key must not be issued, according to a cache that has seen its claim.
func (r *APIKeyReconciler) recheckConflict(ctx context.Context, key *v1alpha1.APIKey) error {
	if err := r.waitForClaim(ctx, key); err != nil {
		return err
	}
	others, err := apikey.ListConflicting(ctx, r, key)
	if err != nil {
		return err
	}
	if conflict := apikey.FindConflict(key, others); conflict != nil {
		return conflict
	}
	if apikey.FindConflictingClaim(key, others) != nil {
		return errConflictingClaim
	}
	return nil
}

// waitForClaim returns when the cache has seen the key's claim, and with it all earlier writes. A list with read-your-writes consistency
// would also wait for all other writes of this process. With --namespaces, each namespace has its own cache, and the consistent read may
// return when another one has caught up, so it is repeated.
func (r *APIKeyReconciler) waitForClaim(ctx context.Context, key *v1alpha1.APIKey) error {
	err := poll.PollUntilContextCancel(ctx, claimReadInterval, true, func(ctx context.Context) (bool, error) {
		seen := &v1alpha1.APIKey{}
		if err := r.getAfterWrite(ctx, client.ObjectKeyFromObject(key), seen); err != nil {
			return false, err
		}
		claim := apikey.ClaimOf(seen)
		return seen.UID == key.UID && claim != nil && claim.Hash == apikey.ClaimOf(key).Hash, nil
	})
	if poll.Interrupted(err) {
		return errors.Join(errClaimNotSeen, err)
	}
	return err
}

// handOver writes the minted token to the one-time Secret. An imported token has no Secret.
func (r *APIKeyReconciler) handOver(ctx context.Context, key *v1alpha1.APIKey, minted string) error {
	if minted == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	secret := newSecret(key, minted)
	err := r.createSecret(ctx, key, secret)
	if apierrors.IsAlreadyExists(err) {
		// This call created it if the first response was lost and the client retried. Else another client did, perhaps long ago.
		return r.replaceSecret(ctx, key, secret)
	}
	return err // if the Secret may exist, the claim stays until that is known
}

// accept records that the claimed token is the newest one, and that it is accepted.
func (r *APIKeyReconciler) accept(key *v1alpha1.APIKey) ctrl.Result {
	if !apikey.IsIssued(key) {
		apikey.HandleRequest(key, r.Now()) // a new key is not rotated at once
	}
	if apikey.ClaimOf(key) != nil {
		apikey.FinishClaim(key, r.timestamp())
	}
	key.Status.NextRotationAt = apikey.NextRotation(key)
	setIssued(key)
	return ctrl.Result{RequeueAfter: r.untilNextDeadline(key)}
}

// stall drops the claim, if one exists, until a user has resolved the conflict. A key is not stalled at once if another key has its app
// name or hash. Tools that rename a key, or move its token, write one object before they delete the other one. They fail if a key is
// stalled in between.
func (r *APIKeyReconciler) stall(ctx context.Context, key *v1alpha1.APIKey, conflict *apikey.Conflict) ctrl.Result {
	dropClaim(key)
	wait := r.untilStalled(key)
	if wait > 0 && apikey.IsOfHolder(conflict.Reason) {
		r.setWaiting(key, conflict.Reason, conflict.Message)
		r.enqueueExpired(ctx, client.ObjectKey{Namespace: key.Namespace, Name: conflict.Holder})
		return ctrl.Result{RequeueAfter: soonest(wait, r.untilExpiry(key))}
	}
	active := metav1.ConditionFalse
	if apikey.IsIssued(key) {
		active = metav1.ConditionTrue
	}
	setStalled(key, active, conflict.Reason, conflict.Message)
	if waitsForSecret(key) {
		return ctrl.Result{RequeueAfter: soonest(r.backOff(key, secretUnwritable), r.untilExpiry(key))}
	}
	r.enqueueExpired(ctx, client.ObjectKey{Namespace: key.Namespace, Name: conflict.Holder})
	return ctrl.Result{RequeueAfter: soonest(r.untilExpiry(key))} // enqueueConflicting enqueues the key when it can be issued
}

// untilStalled returns how long the key may still wait for another one without being stalled. The wait of a new key begins with its
// creation, that of an issued key with its rotation.
func (r *APIKeyReconciler) untilStalled(key *v1alpha1.APIKey) time.Duration {
	since := key.CreationTimestamp.Time
	if apikey.IsIssued(key) {
		if isStalled(key) {
			return 0
		}
		since = r.Now()
		if rotating := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReconciling); rotating != nil {
			since = rotating.LastTransitionTime.Time
		}
	}
	return since.Add(renameTimeout).Sub(r.Now())
}

// withdraw drops the claim, if one exists, and retries with a backoff: no user needs to act.
func (r *APIKeyReconciler) withdraw(key *v1alpha1.APIKey, why cause, waiting string) ctrl.Result {
	dropClaim(key)
	r.setPending(key, waiting)
	return ctrl.Result{RequeueAfter: r.backOff(key, why)}
}

// awaitHandover requeues the key for when its claim is void. If this controller wrote the claim, the status already has the reason.
func (r *APIKeyReconciler) awaitHandover(key *v1alpha1.APIKey) ctrl.Result {
	if !r.backoffs.isDeferred(client.ObjectKeyFromObject(key), r.phaseOf(key)) {
		r.setPending(key, "Waiting for the end of an earlier handover.")
	}
	wait := r.untilClaimIsVoid(key)
	r.delay(key, wait)
	return ctrl.Result{RequeueAfter: soonest(wait, r.untilExpiry(key))}
}

// dropClaim drops the key's claim. A key without a token then has no Secret either.
func dropClaim(key *v1alpha1.APIKey) {
	apikey.DropClaim(key)
	if !apikey.IsClaimed(key) {
		key.Status.SecretName = ""
	}
}

// timestamp returns the current time as the API server stores it.
func (r *APIKeyReconciler) timestamp() metav1.Time {
	return metav1.NewTime(r.Now().Truncate(time.Second))
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/kubeapi"
)

const controllerName = "apikey"

// ReconcileTimeout is the timeout of each reconcile. It is shorter than the lease duration of leader election, 15 s. If a controller is
// paused while it issues a key, and continues after another controller became the leader, the timeout has passed and its calls fail before
// they are sent.
const ReconcileTimeout = 10 * time.Second

// cacheTimeout is how long a read waits until the cache has the controller's last write.
const cacheTimeout = 2 * time.Second

// APIKeyReconciler reconciles APIKeys.
type APIKeyReconciler struct {
	// Client reads APIKeys from a cache that has seen this client's own writes. It must be built with ClientOptions.
	client.Client
	// Secrets reads and writes Secrets without a cache, and creates the events of warnings. NewLiveClient returns such a client.
	Secrets client.Client
	// Events records the events of keys.
	Events events.EventRecorder
	// Now returns the current time.
	Now func() time.Time
	// CheckClock returns an error while the clock must not cause irreversible changes. See kubeapi.Clock.
	CheckClock func(context.Context) error
	// Queue receives the keys for which another key waits. SetupWithManager sets it.
	Queue priorityqueue.PriorityQueue[reconcile.Request]

	backoffs  backoffs
	rotations rotations
	warnings  warnings
	firstKeys apikey.FirstKeys
	lastUses  lastUses
	used      chan event.GenericEvent // keys for which lastUses has a use
}

// ClientOptions returns the options of the manager's client. Before it issues a key, the controller lists the conflicting keys again after
// its own write. That list must contain the write.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: new(true)}}
}

// NewLiveClient returns a client without a cache. A cache would hold all objects of every kind that the client reads, and may be stale.
func NewLiveClient(mgr manager.Manager) (client.Client, error) {
	live, err := client.New(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
	})
	if err != nil {
		return nil, fmt.Errorf("create a client without a cache: %w", err)
	}
	return live, nil
}

// NewAPIKeyReconciler returns a reconciler for the manager, whose client must be built with ClientOptions. The clock must read the API
// server's responses to the manager.
func NewAPIKeyReconciler(mgr manager.Manager, clock *kubeapi.Clock) (*APIKeyReconciler, error) {
	secrets, err := NewLiveClient(mgr)
	if err != nil {
		return nil, err
	}
	return &APIKeyReconciler{
		Client:     mgr.GetClient(),
		Secrets:    secrets,
		Events:     NewEventRecorder(mgr),
		Now:        clock.Now,
		CheckClock: clock.Check,
		used:       make(chan event.GenericEvent),
	}, nil
}

// SetupWithManager adds the reconciler to the manager, whose cache must have the indexes of apikey.Index.
func (r *APIKeyReconciler) SetupWithManager(mgr manager.Manager) error {
	if err := expiring.watch(context.Background(), mgr.GetCache()); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named(controllerName).
		Watches(&v1alpha1.APIKey{}, r.EventHandler()).
		WatchesRawSource(r.usedKeys()).
		WithOptions(r.options(mgr.GetLogger())).
		Complete(r)
}

func (r *APIKeyReconciler) options(log logr.Logger) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: workers,
		ReconciliationTimeout:   ReconcileTimeout,
		NewQueue: func(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) requestQueue {
			r.Queue = newFairQueue(name, limiter, log.WithValues("controller", name))
			return r.Queue
		},
	}
}

// EventHandler returns the handler of all events of keys. It enqueues the key of an event, if that needs a reconcile, and the keys that are
// affected because they conflict with it.
func (r *APIKeyReconciler) EventHandler() handler.EventHandler {
	own, conflicting, changed := r.enqueueByPriority(), r.enqueueConflicting(), r.filterUnchanged()
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, queue requestQueue) {
			if changed.Create(e) {
				own.Create(ctx, e, queue)
			}
			conflicting.Create(ctx, e, queue)
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, queue requestQueue) {
			if changed.Update(e) {
				own.Update(ctx, e, queue)
			}
			conflicting.Update(ctx, e, queue)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, queue requestQueue) {
			own.Delete(ctx, e, queue)
			conflicting.Delete(ctx, e, queue)
		},
	}
}

// Reconcile reconciles one key according to its state, and writes the result to its status.
func (r *APIKeyReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	key := &v1alpha1.APIKey{}
	if err := r.getAfterWrite(ctx, request.NamespacedName, key); err != nil {
		if apierrors.IsNotFound(err) {
			r.backoffs.forget(request.NamespacedName)
			r.rotations.forget(request.NamespacedName)
			r.lastUses.forget(request.NamespacedName)
			r.warnings.forget(request.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if key.IsUnreadable(decisiveFields...) {
		return r.reportUnreadable(ctx, key)
	}
	if wait, changed := r.backoffs.remaining(key, r.phaseOf(key), r.Now()); wait > 0 {
		return r.requeueInBackoff(ctx, key, wait, changed)
	}
	before := key.DeepCopy()
	result, reconcileErr := r.reconcileByState(ctx, key)
	if errors.Is(reconcileErr, errClaimWritten) {
		before, reconcileErr = key.DeepCopy(), nil // nothing has changed since
	}
	var writeErr error
	if !isConflict(reconcileErr) { // otherwise the controller reads the key and its Secret again first
		writeErr = r.writeStatus(ctx, before, key)
		if writeErr == nil {
			r.recordTransition(ctx, before, key)
			result.RequeueAfter = earliest(result.RequeueAfter, r.warn(ctx, key))
		}
	}
	return r.requeue(before, key, result, reconcileErr, writeErr)
}

// getAfterWrite reads a key from the cache when that has the controller's last write of the key. If etcd was restored, the write may be
// lost, and the cache never has it. After cacheTimeout, getAfterWrite therefore reads the cache as it is.
func (r *APIKeyReconciler) getAfterWrite(ctx context.Context, name client.ObjectKey, key *v1alpha1.APIKey) error {
	waiting, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	err := r.Get(waiting, name, key)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return r.Get(ctx, name, key, client.DisableReadYourWritesConsistency)
	}
	return err
}

// requeueInBackoff requeues a key for its next attempt. If the spec has changed, it updates the status to describe the new spec, unless the
// attempt must first record the end of the key.
func (r *APIKeyReconciler) requeueInBackoff(
	ctx context.Context, key *v1alpha1.APIKey, wait time.Duration, changed bool,
) (ctrl.Result, error) {
	active := apikey.StateOf(key, r.Now()) == apikey.StateActive
	if active {
		wait = soonest(wait, r.untilExpiry(key))
	}
	result := ctrl.Result{RequeueAfter: wait, Priority: new(r.priorityOfRequeue(key))}
	if !changed || (!active && key.Status.DeactivatedAt == nil) {
		return result, nil
	}
	before := key.DeepCopy()
	if active && apikey.IsIssued(key) {
		r.describeIssued(key)
	}
	observeGeneration(key)
	if err := r.writeStatus(ctx, before, key); err != nil {
		log.FromContext(ctx).Info("Cannot update the status of a key in backoff after its spec changed", "failure", err.Error())
	}
	return result, nil
}

// reconcileByState reconciles the key according to its state.
func (r *APIKeyReconciler) reconcileByState(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	switch state := apikey.StateOf(key, r.Now()); {
	case state == apikey.StateExpired && !apikey.IsRetired(key) && !r.isClockTrusted(ctx, key, actionEnd):
		return ctrl.Result{RequeueAfter: clockDelay}, nil
	case state != apikey.StateActive:
		return r.reconcileEnded(ctx, key, state)
	case apikey.IsIssued(key):
		return r.reconcileIssued(ctx, key)
	default:
		return r.issue(ctx, key)
	}
}

// requeue updates the key's backoff after an attempt, and returns the result of the reconcile.
func (r *APIKeyReconciler) requeue(
	before, key *v1alpha1.APIKey, result ctrl.Result, reconcileErr, writeErr error,
) (ctrl.Result, error) {
	err := errors.Join(reconcileErr, writeErr)
	switch {
	case isConflict(reconcileErr) || isConflict(writeErr): // another client wrote the key: read it again
		wait := r.backoffs.delayAfterConflict(before, r.phaseOf(before), r.Now())
		result, err = ctrl.Result{RequeueAfter: wait}, nil
	case err != nil:
		r.backOff(before, failedCall)
		result = ctrl.Result{}
	case (apikey.IsIssued(key) && !apikey.IsRotationPending(key, r.Now())) || apikey.IsRetired(key):
		r.backoffs.forget(client.ObjectKeyFromObject(key))
	}
	result.Priority = new(r.priorityOfRequeue(key))
	return result, err
}

// reconcileEnded records, once, that the key was deactivated or has expired, and deletes its Secret. The owner of an expired key may change
// spec.expiresAt until the end is recorded, and then needs the Secret. The event of the record therefore starts its deletion.
func (r *APIKeyReconciler) reconcileEnded(ctx context.Context, key *v1alpha1.APIKey, state apikey.State) (ctrl.Result, error) {
	isFinal := apikey.IsRetired(key)
	if key.Status.DeactivatedAt == nil {
		key.Status.DeactivatedAt = new(r.timestamp())
	} else if readyReason(key) == v1alpha1.ReasonExpired {
		state = apikey.StateExpired // even if its owner deactivates it later
	}
	key.Status.NextRotationAt = nil
	r.mergeLastUses(key)
	r.rotations.forget(client.ObjectKeyFromObject(key))
	r.warnings.forget(client.ObjectKeyFromObject(key))
	setEnded(key, state)
	if !isFinal {
		return ctrl.Result{}, nil
	}
	_, err := r.deleteSecret(ctx, key)
	return ctrl.Result{}, err
}

// reconcileIssued updates the status of an issued key, does what is due, and rotates its token.
func (r *APIKeyReconciler) reconcileIssued(ctx context.Context, key *v1alpha1.APIKey) (result ctrl.Result, err error) {
	r.trackRotation(key)
	r.describeIssued(key)
	r.mergeLastUses(key)
	retry, err := r.meetDeadlines(ctx, key)
	if err != nil {
		return ctrl.Result{}, err
	}
	if apikey.IsRotationPending(key, r.Now()) {
		result, err = r.rotate(ctx, key)
	}
	result.RequeueAfter = earliest(result.RequeueAfter, retry, r.untilNextDeadline(key))
	return result, err
}

// meetDeadlines drops the records of the tokens that have ended, and deletes the Secret when that is due. It returns the delay before the
// next attempt if the clock cannot be trusted.
func (r *APIKeyReconciler) meetDeadlines(ctx context.Context, key *v1alpha1.APIKey) (retry time.Duration, err error) {
	action := actionHandOver
	switch {
	case r.isTokenEnded(key):
		action = actionRotate
	case !r.secretIsDue(key):
		return 0, nil
	}
	if !r.isClockTrusted(ctx, key, action) {
		return clockDelay, nil
	}
	apikey.DropEnded(key, r.Now())
	if !r.secretIsDue(key) {
		return 0, nil
	}
	name := key.Status.SecretName
	deleted, err := r.deleteSecret(ctx, key)
	if deleted {
		r.recordSecretDeleted(key, name)
	}
	return 0, err
}

// describeIssued updates the status of an issued key to describe its spec. It leaves the conditions of a rotation as they are.
func (r *APIKeyReconciler) describeIssued(key *v1alpha1.APIKey) {
	if newest := apikey.NewestToken(key); key.Spec.TokenHash != "" && newest.Hash == key.Spec.TokenHash {
		newest.Hint = key.Spec.TokenHint
	}
	r.describeRotation(key)
	if !apikey.IsRotationPending(key, r.Now()) {
		setIssued(key)
	}
	observeGeneration(key)
}

// filterUnchanged returns a predicate that accepts the keys that are new, have changed or need a reconcile. When a controller starts, or
// after its watch was interrupted, the cache has an event for every key. Most keys are issued and need nothing: without the predicate, the
// queue would grow to the number of keys.
func (r *APIKeyReconciler) filterUnchanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return r.needsReconcile(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion() || r.needsReconcile(e.ObjectNew)
		},
	}
}

// needsReconcile reports whether the controller must do something with the key, now or at a deadline.
func (r *APIKeyReconciler) needsReconcile(object client.Object) bool {
	key := object.(*v1alpha1.APIKey)
	if key.IsUnreadable(decisiveFields...) || apikey.StateOf(key, r.Now()) != apikey.StateActive || !apikey.IsIssued(key) ||
		r.hasDueWork(key) || r.untilNextDeadline(key) != 0 {
		return true
	}
	described := key.DeepCopy()
	r.describeIssued(described)
	return !equality.Semantic.DeepEqual(key.Status, described.Status)
}

// hasDueWork reports whether the controller must do something with an issued key now, even if its status describes its spec.
func (r *APIKeyReconciler) hasDueWork(key *v1alpha1.APIKey) bool {
	return r.secretIsDue(key) || r.isTokenEnded(key) || apikey.IsRotationPending(key, r.Now())
}

// writeStatus writes the status if it has changed, or if a claim was written since the key was read. The write fails with a conflict if
// another client has written the key since.
func (r *APIKeyReconciler) writeStatus(ctx context.Context, before, key *v1alpha1.APIKey) error {
	if key.ResourceVersion == before.ResourceVersion && equality.Semantic.DeepEqual(before.Status, key.Status) {
		return nil
	}
	if err := r.updateStatus(ctx, key); !isNotFound(err) {
		return err
	}
	return nil
}

func (r *APIKeyReconciler) updateStatus(ctx context.Context, key *v1alpha1.APIKey) error {
	writesTotal.WithLabelValues(writtenStatus).Inc()
	return r.Status().Update(ctx, key)
}

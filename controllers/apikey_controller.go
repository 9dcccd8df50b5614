// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers issues, watches over and ends API keys. It is the only writer of the status of APIKeys and of the one-time
// Secrets.
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
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/kubeapi"
)

const (
	controllerName = "apikey"

	// reconcileTimeout is shorter than the lease of leader election (15 s): a controller that was stopped in the middle of issuing
	// and continues after another one took over finds its time over, and its calls fail before they are sent.
	reconcileTimeout = 10 * time.Second
)

// APIKeyReconciler brings APIKeys to the state that they declare.
type APIKeyReconciler struct {
	// Client reads APIKeys from a cache that has seen this client's own writes: see ClientOptions.
	client.Client
	// Secrets reads and writes Secrets: see NewLiveClient.
	Secrets client.Client
	// Events tells people what happened to a key.
	Events events.EventRecorder
	// Now is the clock.
	Now func() time.Time
	// CheckClock returns why nothing may be done yet that cannot be undone and that only the clock demands: see kubeapi.Clock.
	CheckClock func(context.Context) error

	queue   priorityqueue.PriorityQueue[reconcile.Request]
	retries retries
	leaders apikey.FirstKeys
}

// ClientOptions are what the client of the controller's manager must be built with: issuing looks again at the competing keys after
// its own write, and that look must have seen the write.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: new(true)}}
}

// NewLiveClient returns a client without a cache, which would hold all objects of every kind that is read, and lag behind.
func NewLiveClient(mgr manager.Manager) (client.Client, error) {
	live, err := client.New(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
	})
	if err != nil {
		return nil, fmt.Errorf("make a client without a cache: %w", err)
	}
	return live, nil
}

// NewAPIKeyReconciler returns a reconciler that works through the manager, whose client must be built with ClientOptions. The clock must
// see what the API server answers to the manager.
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
	}, nil
}

// SetupWithManager starts the reconciler with the manager, whose cache must be indexed by apikey.Index.
func (r *APIKeyReconciler) SetupWithManager(mgr manager.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named(controllerName).
		Watches(&v1alpha1.APIKey{}, r.enqueueByPriority(), builder.WithPredicates(r.worthALook())).
		Watches(&v1alpha1.APIKey{}, r.enqueueCompetitors()).
		WithOptions(r.options(mgr.GetLogger())).
		Complete(r)
}

func (r *APIKeyReconciler) options(log logr.Logger) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: workers,
		ReconciliationTimeout:   reconcileTimeout,
		NewQueue: func(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) requestQueue {
			r.queue = newFairQueue(name, limiter, log.WithValues("controller", name))
			return r.queue
		},
	}
}

// Reconcile reads one key, advances it, writes what became of it to its status, and reports it.
func (r *APIKeyReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	key := &v1alpha1.APIKey{}
	if err := r.Get(ctx, request.NamespacedName, key); err != nil {
		if apierrors.IsNotFound(err) {
			r.retries.forget(request.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if key.IsUnreadable(decisiveFields...) {
		return r.reportUnreadable(ctx, key)
	}
	if wait, changed := r.retries.remaining(key, r.phaseOf(key), r.Now()); wait > 0 {
		return r.waitOn(ctx, key, wait, changed)
	}
	before := key.DeepCopy()
	result, advanceErr := r.advance(ctx, key)
	writeErr := r.writeStatus(ctx, before, key)
	if writeErr == nil {
		r.announce(ctx, before, key)
	}
	err := errors.Join(advanceErr, writeErr)
	switch {
	case wasOvertaken(advanceErr) || wasOvertaken(writeErr): // another client wrote the key: read it again
		r.postpone(before, conflictDelay)
		result, err = ctrl.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		r.tryAgain(before, failedCall)
		result = ctrl.Result{}
	case apikey.IsIssued(key) || apikey.IsRetired(key):
		r.retries.forget(request.NamespacedName)
	}
	result.Priority = new(r.priorityOfNext(key))
	return result, err
}

// waitOn does nothing for a key that was woken before its next try, but that its status follows its spec when its owner changed that.
func (r *APIKeyReconciler) waitOn(ctx context.Context, key *v1alpha1.APIKey, wait time.Duration, changed bool) (ctrl.Result, error) {
	active := apikey.StateOf(key, r.Now()) == apikey.StateActive
	if active {
		wait = soonest(wait, r.untilExpiry(key))
	}
	result := ctrl.Result{RequeueAfter: wait, Priority: new(r.priorityOfNext(key))}
	if !changed {
		return result, nil
	}
	before := key.DeepCopy()
	if active && apikey.IsIssued(key) {
		describeIssued(key)
	}
	observeGeneration(key)
	if err := r.writeStatus(ctx, before, key); err != nil {
		log.FromContext(ctx).Info("the status does not follow the spec of a key yet that waits for its next try", "failure", err.Error())
	}
	return result, nil
}

// advance takes the key the next step of its life.
func (r *APIKeyReconciler) advance(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	switch state := apikey.StateOf(key, r.Now()); {
	case state == apikey.StateExpired && !apikey.IsRetired(key) && !r.mayGoByClock(ctx, key, actionEnd):
		return ctrl.Result{RequeueAfter: clockDelay}, nil
	case state != apikey.StateActive:
		return r.end(ctx, key, state)
	case apikey.IsIssued(key):
		return r.keep(ctx, key)
	default:
		return r.issue(ctx, key)
	}
}

// postpone has the key tried again after a wait that does not count as a failure.
func (r *APIKeyReconciler) postpone(key *v1alpha1.APIKey, wait time.Duration) {
	r.retries.postpone(key, r.phaseOf(key), r.Now().Add(wait))
}

// tryAgain returns how long the key waits for its next try.
func (r *APIKeyReconciler) tryAgain(key *v1alpha1.APIKey, why cause) time.Duration {
	return r.retries.add(key, r.phaseOf(key), why, r.Now())
}

// end records, once, that the key has been deactivated or has expired, and takes its Secret away.
func (r *APIKeyReconciler) end(ctx context.Context, key *v1alpha1.APIKey, state apikey.State) (ctrl.Result, error) {
	if key.Status.DeactivatedAt == nil {
		key.Status.DeactivatedAt = new(r.timestamp())
	} else if readyReason(key) == v1alpha1.ReasonExpired {
		state = apikey.StateExpired // also when its owner deactivates it later
	}
	setEnded(key, state)
	_, err := r.removeSecret(ctx, key)
	return ctrl.Result{}, err
}

// keep watches over an issued key until its Secret's or its own time is over.
func (r *APIKeyReconciler) keep(ctx context.Context, key *v1alpha1.APIKey) (ctrl.Result, error) {
	describeIssued(key)
	if r.secretIsDue(key) {
		if !r.mayGoByClock(ctx, key, actionHandOver) {
			return ctrl.Result{RequeueAfter: clockDelay}, nil
		}
		name := key.Status.SecretName
		removed, err := r.removeSecret(ctx, key)
		if err != nil {
			return ctrl.Result{}, err
		}
		if removed {
			r.announceSecretRemoved(key, name)
		}
	}
	return ctrl.Result{RequeueAfter: r.untilNextInstant(key)}, nil
}

// describeIssued brings the status of an issued key up to date with its spec.
func describeIssued(key *v1alpha1.APIKey) {
	if key.Spec.TokenHash != "" {
		key.Status.Tokens[0].Hint = key.Spec.TokenHint
	}
	setIssued(key)
	key.Status.ObservedGeneration = key.Generation
}

// worthALook passes the keys that are new or have changed, but not those that are only told of, as all are when a controller starts or has
// lost its watch, and that nothing is to be done about. Of the very many that there may be, most are issued, and nothing will ever happen
// to them by itself: to queue them all would leave a queue of that size behind.
func (r *APIKeyReconciler) worthALook() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return r.hasWork(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion() || r.hasWork(e.ObjectNew)
		},
	}
}

// hasWork says whether anything is to be done about a key, now or later.
func (r *APIKeyReconciler) hasWork(object client.Object) bool {
	key := object.(*v1alpha1.APIKey)
	if key.IsUnreadable(decisiveFields...) || apikey.StateOf(key, r.Now()) != apikey.StateActive || !apikey.IsIssued(key) ||
		r.untilNextInstant(key) != 0 {
		return true
	}
	described := key.DeepCopy()
	describeIssued(described)
	return !equality.Semantic.DeepEqual(key.Status, described.Status)
}

// writeStatus writes the status when it differs from what the API server has, on the condition that nobody else wrote the object.
func (r *APIKeyReconciler) writeStatus(ctx context.Context, before, key *v1alpha1.APIKey) error {
	key.Status.ObservedGeneration = key.Generation
	if equality.Semantic.DeepEqual(before.Status, key.Status) {
		return nil
	}
	if err := r.updateStatus(ctx, key); !isGone(err) {
		return err
	}
	return nil
}

func (r *APIKeyReconciler) updateStatus(ctx context.Context, key *v1alpha1.APIKey) error {
	writesTotal.WithLabelValues(writtenStatus).Inc()
	return r.Status().Update(ctx, key)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

var (
	hashA, hashB = token.Hash("a"), token.Hash("b")
	secrets      = schema.GroupResource{Resource: "secrets"}
)

// refusal returns the error of the API server for a refused Secret.
func refusal(code int32, reason metav1.StatusReason, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}}
}

// refusedAsConflict returns the error of a webhook that refuses with the code of a conflict.
func refusedAsConflict() error {
	return refusal(409, metav1.StatusReasonConflict, `admission webhook "v.example.com" denied the request: no`)
}

// refusedAsNotFound returns the error of a webhook that refuses with the code of a missing object.
func refusedAsNotFound() error {
	return refusal(404, metav1.StatusReasonNotFound, `admission webhook "v.example.com" denied the request: no`)
}

// wait is a state of a waiting key.
type wait struct {
	change func(*v1alpha1.APIKey)
	others []client.Object
	// onCreate, onDelete and onStatus return the error of these calls, or nil if the API server responds.
	onCreate, onDelete, onStatus func(context.Context) error
	// want is the status and the reason of the Ready condition at the end.
	want string
	// retried is true if the controller reattempts as long as the key waits.
	retried bool
}

// waits returns all states of waiting keys.
func waits() map[string]wait {
	return map[string]wait{
		"issued":                          {want: "True Issued"},
		"issued, the Secret's ttl passes": {change: ttl(5 * time.Minute), want: "True Issued"},
		"issued, the Secret's deletion is refused": {
			change: ttl(5 * time.Minute), want: "True Issued", retried: true,
			onDelete: returns(apierrors.NewForbidden(secrets, "key-token", fmt.Errorf("no"))),
		},
		"expires":                 {change: expiresIn(5 * time.Minute), want: "True Expired"},
		"expired at its creation": {change: expiresIn(-time.Hour), want: "True Expired"},
		"expires while it is refused": {
			change: expiresIn(22 * time.Minute), want: "True Expired", retried: true, onCreate: returns(refusal(403, metav1.StatusReasonForbidden, "no")),
		},
		"expires, the Secret's deletion is refused": {
			change: expiresIn(5 * time.Minute), want: "True Expired", retried: true,
			onDelete: returns(refusal(403, metav1.StatusReasonForbidden, "no")),
		},
		"expires, the Secret's deletion gets no response": {
			change: expiresIn(5 * time.Minute), want: "True Expired", retried: true, onDelete: hang,
		},
		"expires, the Secret's deletion is refused as a conflict": {
			change: expiresIn(5 * time.Minute), want: "True Expired", retried: true, onDelete: returns(refusedAsConflict()),
		},
		"expires, the Secret's deletion is refused as not found": {
			change: expiresIn(5 * time.Minute), want: "True Expired", retried: true, onDelete: returns(refusedAsNotFound()),
		},
		"deactivated, its Secret has the token in another data key": {want: "True Deactivated", change: func(key *v1alpha1.APIKey) {
			issued(hashA)(key)
			key.Spec.Active, key.Status.SecretName = new(false), "key-token"
		}, others: []client.Object{&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "key-token", OwnerReferences: []metav1.OwnerReference{
				{Kind: "APIKey", Name: "key", UID: "key", Controller: new(true)},
			}},
			Type: v1alpha1.SecretTypeToken, Immutable: new(true), Data: map[string][]byte{"another": []byte("a")},
		}}},
		"deactivated": {change: func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }, want: "True Deactivated"},
		"being deleted, with a finalizer": {want: "True Deactivated", change: func(key *v1alpha1.APIKey) {
			key.Finalizers, key.DeletionTimestamp = []string{"example.com/keep"}, new(metav1.Now())
		}},

		"AppNameConflict with an issued key": {others: other(appName("App"), issued(hashA)), want: "False AppNameConflict"},
		"AppNameConflict with a claim":       {others: other(appName("App"), claimed(hashA, nil)), want: "False AppNameConflict"},
		"AppNameConflict with a claim, stalled": {
			others: other(appName("App"), claimed(hashA, nil), blocked(v1alpha1.ReasonSecretRefused)), want: "False AppNameConflict"},
		"TokenHashConflict": {
			change: tokenHash(hashA), others: other(issued(hashA)), want: "False TokenHashConflict",
		},
		"TokenHashConflict with an ended key": {
			change: tokenHash(hashA), others: other(issued(hashA), func(key *v1alpha1.APIKey) { key.Status.DeactivatedAt = new(metav1.Now()) }),
			want: "False TokenHashConflict",
		},
		"SecretConflict": {others: secret(nil), want: "False SecretConflict", retried: true},
		"SecretConflict with another key": {others: secret(&metav1.OwnerReference{
			Kind: "APIKey", Name: "other", UID: "other", Controller: new(true),
		}), want: "False SecretConflict", retried: true},
		"the Secret of a former key is not deleted": {others: secret(&metav1.OwnerReference{
			Kind: "APIKey", Name: "key", UID: "former", Controller: new(true),
		}), want: "False SecretConflict", retried: true},

		"SecretRefused by a quota": {want: "False SecretRefused", retried: true,
			onCreate: returns(refusal(403, metav1.StatusReasonForbidden, `secrets "key-token" is forbidden: exceeded quota: few`))},
		"SecretRefused by a webhook": {want: "False SecretRefused", retried: true,
			onCreate: returns(refusal(403, metav1.StatusReasonForbidden, `admission webhook "v.example.com" denied the request: no`))},
		"SecretRefused by a webhook, as a conflict": {want: "False SecretRefused", retried: true,
			onCreate: returns(refusedAsConflict())},
		"SecretRefused by a webhook, as a failure": {want: "False SecretRefused", retried: true,
			onCreate: returns(refusal(500, metav1.StatusReasonInternalError, `admission webhook "v.example.com" denied the request: no`))},
		"SecretRefused by a webhook, slowly": {want: "False SecretRefused", retried: true, onCreate: func(context.Context) error {
			time.Sleep(5 * time.Second)
			return refusal(403, metav1.StatusReasonForbidden, `admission webhook "v.example.com" denied the request: no`)
		}},
		"SecretRefused by a policy": {want: "False SecretRefused", retried: true,
			onCreate: returns(refusal(422, metav1.StatusReasonInvalid, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"))},
		"SecretRefused, the namespace is terminating": {want: "False SecretRefused", retried: true,
			onCreate: returns(refusal(403, metav1.StatusReasonForbidden, "unable to create new content because it is being terminated"))},
		"SecretRefused, the namespace is deleted": {want: "False SecretRefused", retried: true, onCreate: returns(apierrors.NewNotFound(secrets, "x"))},
		"SecretRefused as too large": {want: "False SecretRefused", retried: true,
			onCreate: returns(apierrors.NewRequestEntityTooLargeError("no"))},

		"the creation of the Secret fails": {want: "Unknown Pending", retried: true,
			onCreate: returns(apierrors.NewInternalError(fmt.Errorf("no")))},
		"the creation of the Secret gets no response": {want: "Unknown Pending", retried: true, onCreate: hang},
		"the creation of a Secret with a ttl fails": {change: ttl(5 * time.Minute), want: "Unknown Pending", retried: true,
			onCreate: returns(apierrors.NewInternalError(fmt.Errorf("no")))},
		"the API server is overloaded":        {want: "Unknown Pending", retried: true, onCreate: returns(apierrors.NewTooManyRequests("no", 1))},
		"the status cannot be written":        {want: " ", retried: true, onStatus: returns(apierrors.NewInternalError(fmt.Errorf("no")))},
		"the status is refused as not found":  {want: " ", retried: true, onStatus: returns(refusedAsNotFound())},
		"the status is refused as a conflict": {want: " ", retried: true, onStatus: returns(refusedAsConflict())},
		"the status is forbidden":             {want: " ", retried: true, onStatus: returns(refusal(403, metav1.StatusReasonForbidden, "no"))},
		"another controller is handing over":  {change: claimed(hashB, new(metav1.Now())), want: "True Issued"},
		"another controller stopped before the handover": {
			change: claimed(hashB, nil), want: "True Issued",
		},
	}
}

// TestInvariant10_AWaitingKeyCausesNoLoad runs each kind of waiting key for 25 minutes with an event every 15 seconds. It counts the
// controller's writes. A change of state may take 4. Afterwards only reattempts with a growing backoff may write.
func TestInvariant10_AWaitingKeyCausesNoLoad(t *testing.T) {
	t.Parallel()
	for name := range waits() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wait := waits()[name] // here, because it uses the fake clock
				s := newSimulation(t)
				s.onCreate, s.onDelete, s.onStatus = wait.onCreate, wait.onDelete, wait.onStatus
				key := newKey("key", appName("App"))
				if wait.change != nil {
					wait.change(key)
				}
				s.add(append(wait.others, key)...)
				s.start()
				for range 100 {
					time.Sleep(15 * time.Second)
					s.wake(key)
				}
				synctest.Wait()

				if got := s.get(key); fmt.Sprint(readyCondition(got).Status, " ", readyCondition(got).Reason) != wait.want {
					t.Errorf("the key is %s %s (%s), want %s", readyCondition(got).Status, readyCondition(got).Reason, readyCondition(got).Message, wait.want)
				}
				if got := s.get(key); isStalled(got) && apikey.IsClaimed(got) {
					t.Error("the stalled key has a claim, and with it its app name")
				}
				s.assertNoLoop(wait.retried)
			})
		})
	}
}

// Each write conflicts while the cache lags, for example because another client writes the key again and again.
func TestInvariant10_RepeatedConflictsOfAKeyCauseLittleLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conflict := apierrors.NewConflict(schema.GroupResource{Resource: "apikeys"}, "key", nil)
		s := newSimulation(t)
		var attempts []time.Duration
		started := time.Now()
		s.onStatus = func(context.Context) error {
			if attempts = append(attempts, time.Since(started)); time.Since(started) < 10*time.Second {
				return conflict
			}
			return nil
		}
		key := newKey("key")
		s.add(key)
		s.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		var delays []time.Duration
		for i := range 7 {
			delays = append(delays, attempts[i+1]-attempts[i])
		}
		want := []time.Duration{
			100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond,
			1600 * time.Millisecond, 1600 * time.Millisecond,
		}
		if !slices.Equal(delays, want) {
			t.Errorf("the attempts follow each other after %v, want %v", delays, want)
		}
		if !apikey.IsIssued(s.get(key)) {
			t.Error("the key is not issued after the conflicts have ended")
		}
	})
}

func TestBackoffs_OtherAttemptsResetTheDelayAfterConflicts(t *testing.T) {
	now := time.Now()
	key := newKey("key")
	first, second := phase{uid: "first"}, phase{uid: "second"}
	for name, reset := range map[string]func(*backoffs){
		"a failure":     func(b *backoffs) { b.increase(key, first, failedCall, now) },
		"a wait":        func(b *backoffs) { b.delayUntil(key, first, now) },
		"success":       func(b *backoffs) { b.forget(client.ObjectKeyFromObject(key)) },
		"another phase": func(b *backoffs) { b.increase(key, second, failedCall, now) },
	} {
		b := &backoffs{}
		b.delayAfterConflict(key, first, now)
		b.delayAfterConflict(key, first, now)
		if reset(b); b.delayAfterConflict(key, first, now) != conflictDelay {
			t.Errorf("%s does not reset the delay", name)
		}
	}
}

func TestInvariant10_ARefusedKeyReleasesItsAppNameAtEachRetry(t *testing.T) {
	for attempts, after := range []time.Duration{0, 15 * time.Second, 45 * time.Second, 105 * time.Second} {
		t.Run(fmt.Sprintf("after %d retries", attempts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				s.onCreate = returns(refusal(403, metav1.StatusReasonForbidden, `secrets "refused-token" is forbidden: exceeded quota: few`))
				refused := newKey("refused", appName("App"))
				s.add(refused)
				s.start()
				time.Sleep(after + time.Second)
				if got := s.get(refused); s.writeCount() != 3*(attempts+1) || readyReason(got) != v1alpha1.ReasonSecretRefused || apikey.IsClaimed(got) {
					t.Errorf("after %d writes, the key is %s and records the tokens %v", s.writeCount(), readyReason(got), got.Status.Tokens)
				}

				next := newKey("next", appName("App"), tokenHash(hashA)) // an imported key needs no Secret
				s.create(next)
				synctest.Wait()
				if got := s.get(next); readyReason(got) != v1alpha1.ReasonIssued {
					t.Errorf("the next key of the app name is %s (%s)", readyReason(got), readyMessage(got))
				}
			})
		})
	}
}

// TestInvariant10_AKeyWhoseSecretNameIsTakenClaimsOnce counts the writes of the first attempt, which creates the Secret without reading it,
// and of the retries, which read it first. A new controller finds in the status that the name is taken.
func TestInvariant10_AKeyWhoseSecretNameIsTakenClaimsOnce(t *testing.T) {
	formerKey := &metav1.OwnerReference{Kind: "APIKey", Name: "former", UID: "former", Controller: new(true)}
	for name, test := range map[string]struct {
		owner  *metav1.OwnerReference
		change func(*v1alpha1.APIKey)
		after  time.Duration
		writes int
		reason string
	}{
		"by a Secret of another party":                {after: 5 * time.Minute, writes: 3, reason: v1alpha1.ReasonSecretConflict},
		"by the Secret of a former key":               {owner: formerKey, after: 20 * time.Second, writes: 3, reason: v1alpha1.ReasonPending},
		"by the Secret of a former key, for a minute": {owner: formerKey, after: 5 * time.Minute, writes: 4, reason: v1alpha1.ReasonSecretConflict},
		"before the controller starts": {
			change: blocked(v1alpha1.ReasonSecretConflict), after: 5 * time.Minute, writes: 1, reason: v1alpha1.ReasonSecretConflict,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				key := newKey("key", appName("App"))
				if test.change != nil {
					test.change(key)
				}
				s.add(append(secret(test.owner), key)...)
				s.start()
				time.Sleep(test.after)
				synctest.Wait()
				if got := s.get(key); readyReason(got) != test.reason || apikey.IsClaimed(got) || s.writeCount() != test.writes {
					t.Errorf("after %d writes, the key is %s (%s) and records the tokens %v",
						s.writeCount(), readyReason(got), readyMessage(got), got.Status.Tokens)
				}
				if len(s.reads) < 4 {
					t.Errorf("the Secret was read only %d times", len(s.reads))
				}
			})
		})
	}
}

// TestInvariant10_AKeyThatWithdrawsAgainDropsItsClaim lets another controller claim for a younger key of the app name at each claim of this
// one, and drop that claim later.
func TestInvariant10_AKeyThatWithdrawsAgainDropsItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		key, rival := newKey("key", appName("App")), newKey("rival", appName("App"))
		rival.CreationTimestamp = metav1.NewTime(time.Now().Add(time.Minute))
		s.add(key, rival)
		s.onStatus = func(ctx context.Context) error {
			current := s.get(rival)
			current.Status.Tokens = nil
			if isClaim := !apikey.IsClaimed(s.get(key)); isClaim {
				claimed(hashA, nil)(current)
			}
			return s.api.Status().Update(ctx, current)
		}
		s.handler = handler.Funcs{} // so that only its backoff enqueues the key
		s.start()
		add(s.queue, client.ObjectKeyFromObject(key), priorityNew)
		for _, delay := range []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, time.Second} {
			time.Sleep(delay)
			synctest.Wait()
			if got := s.get(key); apikey.IsClaimed(got) || readyReason(got) != v1alpha1.ReasonPending {
				t.Errorf("the key is %s (%s) and records the tokens %v", readyReason(got), readyMessage(got), got.Status.Tokens)
			}
		}
	})
}

func TestInvariant10_AnUnreadableIssuedKeyIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		s.handler = handler.Funcs{} // the fake API cannot store unreadable fields
		s.add(newKey("key", issued(hashA)))
		for range 3 {
			key := s.get(newKey("key"))
			key.Unreadable = []string{"spec.secret.ttl"}
			_, err := s.reconciler.reportUnreadable(t.Context(), key)
			framework.Must(s, err)
			time.Sleep(time.Minute)
		}
		if len(s.writes) != 1 {
			t.Errorf("%d writes, want 1", len(s.writes))
		}
	})
}

// simulation runs the controller with its real queue, a fake API and a fake clock. Each status write causes an event.
type simulation struct {
	*testing.T
	api        client.Client
	reconciler *APIKeyReconciler
	events     *events.FakeRecorder
	queue      requestQueue
	handler    handler.EventHandler

	// onCreate, onDelete and onStatus return the error of these calls, or nil if the fake API responds.
	onCreate, onDelete, onStatus func(context.Context) error

	mu            sync.Mutex
	writes, reads []time.Time
}

func newSimulation(t *testing.T) *simulation {
	t.Helper()
	s := &simulation{T: t, events: events.NewFakeRecorder(10_000)}
	scheme := runtime.NewScheme()
	framework.Must(s, corev1.AddToScheme(scheme))
	framework.Must(s, v1alpha1.AddToScheme(scheme))
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.APIKey{})
	framework.Must(s, apikey.Index(t.Context(), indexer{builder}))
	s.api = builder.Build()
	counted := interceptor.NewClient(s.api.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, name client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if _, ok := object.(*corev1.Secret); ok {
				s.count(&s.reads)
			}
			return c.Get(ctx, name, object, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			return s.write(ctx, s.onCreate, func() error { return c.Create(ctx, object, options...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, _ ...client.DeleteOption) error {
			return s.write(ctx, s.onDelete, func() error { return c.Delete(ctx, object) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, _ string, object client.Object, options ...client.SubResourceUpdateOption) error {
			return s.write(ctx, s.onStatus, func() error {
				former := s.get(object)
				if err := c.Status().Update(ctx, object, options...); err != nil {
					return err
				}
				s.deliver(event.UpdateEvent{ObjectOld: former, ObjectNew: s.get(object)})
				return nil
			})
		},
	})
	s.reconciler = &APIKeyReconciler{Client: counted, Secrets: counted, Events: s.events, Now: time.Now,
		CheckClock: func(context.Context) error { return nil }}
	s.handler = s.reconciler.EventHandler()
	return s
}

// indexer adds the indexes of the cache to the fake API.
type indexer struct{ builder *fake.ClientBuilder }

func (i indexer) IndexField(_ context.Context, object client.Object, field string, extract client.IndexerFunc) error {
	i.builder.WithIndex(object, field, extract)
	return nil
}

// start runs the controller until the end of the test.
func (s *simulation) start() {
	s.Helper()
	options := s.reconciler.options(logr.Discard())
	options.Reconciler, options.SkipNameValidation = s.reconciler, new(true)
	options.RateLimiter, options.RecoverPanic = nil, new(false)
	running, err := controller.NewUnmanaged("apikey", options)
	framework.Must(s, err)
	started := make(chan struct{})
	framework.Must(s, running.Watch(source.Func(func(_ context.Context, queue requestQueue) error {
		s.queue = queue
		close(started)
		return nil
	})))
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- running.Start(ctx) }()
	s.Cleanup(func() {
		stop()
		framework.Must(s, <-stopped)
	})
	<-started
	var keys v1alpha1.APIKeyList
	framework.Must(s, s.api.List(context.Background(), &keys))
	for i := range keys.Items {
		s.handler.Create(context.Background(), event.CreateEvent{Object: &keys.Items[i]}, s.queue)
	}
}

func (s *simulation) add(objects ...client.Object) {
	s.Helper()
	for _, object := range objects {
		if object = object.DeepCopyObject().(client.Object); !object.GetDeletionTimestamp().IsZero() {
			object.SetDeletionTimestamp(nil)
			defer func() { framework.Must(s, s.api.Delete(context.Background(), object)) }()
		}
		if key, ok := object.(*v1alpha1.APIKey); ok {
			recorded := key.Status.DeepCopy()
			framework.Must(s, s.api.Create(context.Background(), key))
			key.Status = *recorded
			framework.Must(s, s.api.Status().Update(context.Background(), key))
			continue
		}
		framework.Must(s, s.api.Create(context.Background(), object))
	}
}

// create adds a key and sends its event.
func (s *simulation) create(key *v1alpha1.APIKey) {
	s.Helper()
	s.add(key)
	s.handler.Create(context.Background(), event.CreateEvent{Object: s.get(key)}, s.queue)
}

// wake sends the event of a changed annotation.
func (s *simulation) wake(key client.Object) {
	object := s.get(key)
	former := object.DeepCopy()
	former.ResourceVersion = "former"
	s.deliver(event.UpdateEvent{ObjectOld: former, ObjectNew: object})
}

// changeSpec changes the spec of a key, and sends the event.
func (s *simulation) changeSpec(key client.Object) {
	s.Helper()
	former := s.get(key)
	changed := former.DeepCopy()
	changed.Spec.WriteAccess = !changed.Spec.WriteAccess
	changed.Generation++
	framework.Must(s, s.api.Update(context.Background(), changed))
	s.deliver(event.UpdateEvent{ObjectOld: former, ObjectNew: s.get(key)})
}

func (s *simulation) deliver(update event.UpdateEvent) {
	s.handler.Update(context.Background(), update, s.queue)
}

func (s *simulation) write(ctx context.Context, before func(context.Context) error, write func() error) error {
	s.count(&s.writes)
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	return write()
}

func (s *simulation) count(calls *[]time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*calls = append(*calls, time.Now())
}

func (s *simulation) writeCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.writes)
}

func (s *simulation) get(object client.Object) *v1alpha1.APIKey {
	s.Helper()
	key := &v1alpha1.APIKey{}
	framework.Must(s, s.api.Get(context.Background(), client.ObjectKeyFromObject(object), key))
	return key
}

// assertNoLoop checks the writes of each attempt, and the delays between the attempts.
func (s *simulation) assertNoLoop(retried bool) {
	s.Helper()
	var attempts [][]time.Time
	for _, at := range s.writes {
		if last := len(attempts) - 1; last >= 0 && at.Sub(attempts[last][len(attempts[last])-1]) < time.Second {
			attempts[last] = append(attempts[last], at)
			continue
		}
		attempts = append(attempts, []time.Time{at})
	}
	var gaps []time.Duration
	for i, attempt := range attempts {
		if len(attempt) > 4 {
			s.Errorf("attempt %d made %d writes", i, len(attempt))
		}
		if i > 0 {
			gaps = append(gaps, attempt[0].Sub(attempts[i-1][0]))
		}
	}
	s.Logf("%d attempts, %d writes, %d reads; the last gaps: %s", len(attempts), len(s.writes), len(s.reads), gaps[max(0, len(gaps)-12):])
	switch {
	case retried && len(attempts)+len(s.reads) < 10:
		s.Errorf("only %d attempts, and the Secret was read only %d times", len(attempts), len(s.reads))
	case !retried && len(attempts) > 2:
		s.Errorf("unexpected writes at %s", s.writes)
	case retried && (len(attempts) > 40 || (len(gaps) > 2 && slices.Max(gaps) < maxBackoff)):
		s.Errorf("%d attempts, %s apart", len(attempts), gaps)
	case len(s.reads) > 2*len(attempts)+40:
		s.Errorf("the Secret was read %d times", len(s.reads))
	}
	counts := map[string]int{}
	for len(s.events.Events) > 0 {
		counts[strings.Join(strings.Fields(<-s.events.Events)[:2], " ")]++
	}
	for reason, times := range counts {
		if times > 1 && reason != "Warning Reissued" {
			s.Errorf("event %q was repeated %d times", reason, times)
		}
	}
}

func returns(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// newKey returns a key whose name is also its UID and its app name.
func newKey(name string, changes ...func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(name), Generation: 1, CreationTimestamp: metav1.Now(),
		},
		Spec: v1alpha1.APIKeySpec{AppName: name, ReadAccess: true},
	}
	for _, change := range changes {
		change(key)
	}
	return key
}

func other(changes ...func(*v1alpha1.APIKey)) []client.Object {
	return []client.Object{newKey("other", changes...)}
}

// secret returns a Secret that has the name of the key's Secret.
func secret(owner *metav1.OwnerReference) []client.Object {
	found := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "key-token"}, Type: v1alpha1.SecretTypeToken}
	if owner != nil {
		found.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return []client.Object{found}
}

func appName(name string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.AppName = name }
}

func tokenHash(hash string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.TokenHash = hash }
}

func ttl(d time.Duration) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) {
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: d}}
	}
}

func expiresIn(d time.Duration) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(d))) }
}

func issued(hash string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) {
		key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: hash, NotBefore: new(metav1.Now())}}
		setIssued(key)
	}
}

func claimed(hash string, at *metav1.Time) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) {
		key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: hash, ClaimedAt: at}}
		(&APIKeyReconciler{}).setPending(key, "Handing over the token.")
	}
}

func blocked(reason string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { setStalled(key, metav1.ConditionFalse, reason, "no") }
}

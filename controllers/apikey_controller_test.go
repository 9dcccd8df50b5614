// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestFilterUnchanged_AcceptsUnchangedKeysThatNeedAReconcile(t *testing.T) {
	now := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	r := &APIKeyReconciler{Now: func() time.Time { return now }}
	later := metav1.NewTime(now.Add(time.Hour))
	for name, test := range map[string]struct {
		change func(*v1alpha1.APIKey)
		want   bool
	}{
		"issued and unchanged": {func(*v1alpha1.APIKey) {}, false},
		"not issued":           {func(key *v1alpha1.APIKey) { key.Status.Tokens = nil }, true},
		"deactivated":          {func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }, true},
		"expires later":        {func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = &later }, true},
		"its Secret is due later": {func(key *v1alpha1.APIKey) {
			key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: 2 * time.Hour}}
		}, true},
		"its spec has changed":   {func(key *v1alpha1.APIKey) { key.Generation = 2 }, true},
		"a condition is missing": {func(key *v1alpha1.APIKey) { key.Status.Conditions = key.Status.Conditions[:1] }, true},
	} {
		key := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Generation: 1, ResourceVersion: "7"}}
		key.Status.Tokens = []v1alpha1.TokenRecord{{NotBefore: &metav1.Time{Time: now}}}
		key.Status.SecretName = "key-token"
		r.describeIssued(key)
		test.change(key)
		former := key.DeepCopy()
		if got := r.filterUnchanged().Create(event.CreateEvent{Object: key}); got != test.want {
			t.Errorf("%s: a new key is accepted: %t, want %t", name, got, test.want)
		}
		if got := r.filterUnchanged().Update(event.UpdateEvent{ObjectOld: former, ObjectNew: key}); got != test.want {
			t.Errorf("%s: an unchanged key is accepted: %t, want %t", name, got, test.want)
		}
		former.ResourceVersion = "6"
		if !r.filterUnchanged().Update(event.UpdateEvent{ObjectOld: former, ObjectNew: key}) {
			t.Errorf("%s: a changed key is not accepted", name)
		}
	}
}

func TestReconcile_AKeyWhoseLastWriteEtcdHasLostIsIssued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		s.reconciler.Client = lostWrite{s.reconciler.Client}
		s.add(newKey("key"))
		s.start()
		time.Sleep(ReconcileTimeout)
		synctest.Wait()
		if key := s.get(newKey("key")); readyReason(key) != v1alpha1.ReasonIssued {
			t.Errorf("the key is %s (%s)", readyReason(key), readyMessage(key))
		}
	})
}

// lostWrite is a client whose cache never has its last write.
type lostWrite struct{ client.Client }

// Get waits for the write, unless the options disable that.
func (c lostWrite) Get(ctx context.Context, name client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if _, isKey := object.(*v1alpha1.APIKey); isKey && !(&client.GetOptions{}).ApplyOptions(options).DisableReadYourWritesConsistency {
		<-ctx.Done()
		return ctx.Err()
	}
	return c.Client.Get(ctx, name, object, options...)
}

// TestReconcile_TheStatusNamesNoGenerationWhoseEndIsNotRecorded ends a key while its end cannot be recorded, and changes its spec again.
func TestReconcile_TheStatusNamesNoGenerationWhoseEndIsNotRecorded(t *testing.T) {
	for name, test := range map[string]struct {
		end          func(*v1alpha1.APIKey)
		distrusts    bool // the clock, or else the status cannot be written
		wantAtTheEnd string
	}{
		"deactivated":                          {end: func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }, wantAtTheEnd: v1alpha1.ReasonDeactivated},
		"expired":                              {end: expiresIn(-time.Second), wantAtTheEnd: v1alpha1.ReasonExpired},
		"expired, the clock cannot be trusted": {end: expiresIn(-time.Second), distrusts: true, wantAtTheEnd: v1alpha1.ReasonExpired},
		"being deleted, with a finalizer": {end: func(key *v1alpha1.APIKey) {
			key.Finalizers, key.DeletionTimestamp = []string{"example.com/keep"}, new(metav1.Now())
		}, wantAtTheEnd: v1alpha1.ReasonDeactivated},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				var isTrusted, isWritable atomic.Bool
				isTrusted.Store(!test.distrusts)
				isWritable.Store(test.distrusts)
				s.reconciler.CheckClock = failUnless(&isTrusted)
				s.onStatus = failUnless(&isWritable)
				key := newKey("key", issued(hashA))
				test.end(key)
				key.Generation = 2
				s.add(key)
				s.start()
				synctest.Wait()

				isWritable.Store(true)
				s.changeSpec(key)
				synctest.Wait()
				if got := s.get(key); got.Status.ObservedGeneration != 1 || got.Status.DeactivatedAt != nil {
					t.Errorf("the status has generation %d and deactivatedAt %v", got.Status.ObservedGeneration, got.Status.DeactivatedAt)
				}

				isTrusted.Store(true)
				time.Sleep(clockDelay)
				synctest.Wait()
				if got := s.get(key); got.Status.ObservedGeneration != 3 || readyReason(got) != test.wantAtTheEnd {
					t.Errorf("the status has generation %d and reason %s, want 3 and %s", got.Status.ObservedGeneration, readyReason(got), test.wantAtTheEnd)
				}
			})
		})
	}
}

// failUnless returns a function that returns an error until ok is true.
func failUnless(ok *atomic.Bool) func(context.Context) error {
	return func(context.Context) error {
		if ok.Load() {
			return nil
		}
		return apierrors.NewInternalError(errors.New("no"))
	}
}

func TestReconcile_TheStatusOfARecordedEndNamesANewGenerationInBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		s.onDelete = returns(apierrors.NewForbidden(secrets, "key-token", nil))
		key := newKey("key", issued(hashA), func(key *v1alpha1.APIKey) {
			key.Spec.Active, key.Status.SecretName = new(false), "key-token"
		})
		s.add(key, newSecret(key, "a"))
		s.start()
		synctest.Wait()
		s.changeSpec(key)
		synctest.Wait()
		if got := s.get(key); got.Status.ObservedGeneration != 2 || readyReason(got) != v1alpha1.ReasonDeactivated || got.Status.SecretName == "" {
			t.Errorf("the status has generation %d, reason %s and Secret %q", got.Status.ObservedGeneration, readyReason(got), got.Status.SecretName)
		}
	})
}

// TestReconcile_AConflictIsReadAgainWithoutAnotherWrite counts the writes of the attempt that conflicts, and of the next one, which does not
// wait for a backoff.
func TestReconcile_AConflictIsReadAgainWithoutAnotherWrite(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{}, "key", errors.New("no"))
	deactivated := newKey("key", issued(hashA), func(key *v1alpha1.APIKey) {
		key.Spec.Active, key.Status.SecretName = new(false), "key-token"
	})
	for name, test := range map[string]struct {
		key                *v1alpha1.APIKey
		secret             *corev1.Secret
		onDelete, onStatus func(context.Context) error
		first, both        int
	}{
		"the claim conflicts": {
			key: newKey("key"), onStatus: returnsOnce(conflict), first: 1, both: 1 + 3,
		},
		"the deletion of a void Secret conflicts": {
			key: deactivated, secret: newSecret(deactivated, "void"), onDelete: returnsOnce(conflict), first: 1, both: 1 + 2,
		},
		"the deletion of the Secret conflicts, because a user has replaced it": {
			key: deactivated, secret: newSecret(deactivated, "a"), onDelete: returnsOnce(conflict), first: 1, both: 1 + 2,
		},
		"the record of an end conflicts": {
			key: deactivated, onStatus: returnsOnce(conflict), first: 1, both: 1 + 1,
		},
		"the record of an end conflicts, and the deletion of the Secret is refused": {
			key: deactivated, secret: newSecret(deactivated, "a"), onStatus: returnsOnce(conflict),
			onDelete: returnsOnce(apierrors.NewForbidden(secrets, "key-token", nil)), first: 2, both: 2 + 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				s.onDelete, s.onStatus = test.onDelete, test.onStatus
				s.add(test.key)
				if test.secret != nil {
					s.add(test.secret)
				}
				s.start()
				synctest.Wait()
				if got := s.writeCount(); got != test.first {
					t.Errorf("the first attempt makes %d writes, want %d", got, test.first)
				}
				time.Sleep(conflictDelay)
				synctest.Wait()
				if got := s.writeCount(); got != test.both {
					t.Errorf("both attempts make %d writes, want %d", got, test.both)
				}
			})
		})
	}
}

// returnsOnce returns the error of the first call. Later calls succeed.
func returnsOnce(err error) func(context.Context) error {
	var called atomic.Bool
	return func(context.Context) error {
		if called.Swap(true) {
			return nil
		}
		return err
	}
}

// TestInvariant3_AStaleCacheDeletesNoSecretOfAnActiveKey changes a key before its Secret is due, while the cache of the controller does not
// see the change.
func TestInvariant3_AStaleCacheDeletesNoSecretOfAnActiveKey(t *testing.T) {
	unchanged := func(*v1alpha1.APIKey) {}
	for name, test := range map[string]struct{ declared, cached, live func(*v1alpha1.APIKey) }{
		"its ttl is extended":    {ttl(5 * time.Minute), unchanged, ttl(time.Hour)},
		"its ttl is removed":     {ttl(5 * time.Minute), unchanged, func(key *v1alpha1.APIKey) { key.Spec.Secret.TTL = nil }},
		"its expiry is extended": {expiresIn(5 * time.Minute), unchanged, expiresIn(time.Hour)},
		"its expiry is removed":  {expiresIn(5 * time.Minute), unchanged, func(key *v1alpha1.APIKey) { key.Spec.ExpiresAt = nil }},
		"a restore of etcd undoes its end": {
			unchanged, func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }, unchanged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				var stale atomic.Pointer[v1alpha1.APIKey] // what the cache has, if not the latest
				s.reconciler.Client = interceptor.NewClient(s.reconciler.Client.(client.WithWatch), interceptor.Funcs{
					Get: func(ctx context.Context, c client.WithWatch, name client.ObjectKey, object client.Object, options ...client.GetOption) error {
						if key := stale.Load(); key != nil {
							key.DeepCopyInto(object.(*v1alpha1.APIKey))
							return nil
						}
						return c.Get(ctx, name, object, options...)
					},
				})
				key := newKey("key", test.declared)
				s.add(key)
				s.start()
				time.Sleep(4 * time.Minute)
				cached, live := s.get(key), s.get(key)
				test.cached(cached)
				stale.Store(cached)
				test.live(live)
				live.Generation++
				framework.Must(s, s.api.Update(t.Context(), live))
				s.wake(key)
				time.Sleep(time.Minute + 10*time.Second)
				stale.Store(nil)
				time.Sleep(10 * time.Second)

				found := &corev1.Secret{}
				framework.Must(s, s.api.Get(t.Context(), client.ObjectKey{Namespace: key.Namespace, Name: "key-token"}, found))
				if got := s.get(key); !holdsToken(found, got) || readyReason(got) != v1alpha1.ReasonIssued || got.Status.SecretName != found.Name {
					t.Errorf("the key is %s, its Secret %q", readyReason(got), got.Status.SecretName)
				}
			})
		})
	}
}

// keyState is a state of a key. The description is for messages.
type keyState struct {
	description string
	change      func(*v1alpha1.APIKey)
}

// allStates returns the states of a key that affect another one: all combinations of its validity, its token and its Stalled condition.
func allStates() []keyState {
	states := []keyState{{}}
	for _, dimension := range [][]keyState{
		{
			{"active", func(*v1alpha1.APIKey) {}},
			{"deactivated", func(key *v1alpha1.APIKey) { key.Spec.Active = new(false) }},
			{"ended", func(key *v1alpha1.APIKey) { key.Status.DeactivatedAt = new(metav1.Now()) }},
			{"with an unreadable end", unreadable("status.deactivatedAt")},
		}, {
			{"without a token", func(*v1alpha1.APIKey) {}},
			{"claimed", claimed(hashA, nil)},
			{"claimed with another hash", claimed(hashB, nil)},
			{"issued", issued(hashA)},
			{"issued with another hash", issued(hashB)},
			{"with unreadable tokens", unreadable("status.tokens")},
		}, {
			{"not blocked", func(*v1alpha1.APIKey) {}},
			{"blocked", blocked(v1alpha1.ReasonSecretRefused)},
		},
	} {
		var combined []keyState
		for _, state := range states {
			for _, more := range dimension {
				combined = append(combined, keyState{state.description + " " + more.description, func(key *v1alpha1.APIKey) {
					if state.change != nil {
						state.change(key)
					}
					more.change(key)
				}})
			}
		}
		states = combined
	}
	return states
}

func unreadable(field string) func(*v1alpha1.APIKey) {
	return func(key *v1alpha1.APIKey) { key.Unreadable = append(key.Unreadable, field) }
}

// keyLister is a cache of these keys.
type keyLister struct {
	client.Client
	keys []v1alpha1.APIKey
}

func (l *keyLister) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*v1alpha1.APIKeyList).Items = slices.Clone(l.keys)
	return nil
}

// recordingQueue records the priority of each key that is added.
type recordingQueue struct {
	priorityqueue.PriorityQueue[reconcile.Request]
	priorities map[string]int
}

func (q *recordingQueue) AddWithOpts(options priorityqueue.AddOpts, requests ...reconcile.Request) {
	for _, request := range requests {
		q.priorities[request.Name] = *options.Priority
	}
}

// conflictChange is a change of a key, which may be a deletion, while another key waits for it.
type conflictChange struct {
	former, current *v1alpha1.APIKey
	waiting         v1alpha1.APIKey
	others          []v1alpha1.APIKey
}

// deliver sends the event of the change, and returns the priority of the waiting key in the queue if it was enqueued.
func (c *conflictChange) deliver(t *testing.T) (priority int, isEnqueued bool) {
	t.Helper()
	waiting := slices.Concat([]v1alpha1.APIKey{c.waiting}, c.others)
	cache := &keyLister{keys: slices.Concat(waiting, []v1alpha1.APIKey{*c.former})}
	r := &APIKeyReconciler{Client: cache, Now: time.Now}
	_, err := r.findConflict(t.Context(), &c.waiting) // it caches the first keys
	framework.Must(t, err)
	queue := &recordingQueue{priorities: map[string]int{}}
	if c.current == nil {
		cache.keys = waiting
		r.EventHandler().Delete(t.Context(), event.DeleteEvent{Object: c.former}, queue)
	} else {
		cache.keys = slices.Concat(waiting, []v1alpha1.APIKey{*c.current})
		r.EventHandler().Update(t.Context(), event.UpdateEvent{ObjectOld: c.former, ObjectNew: c.current}, queue)
	}
	priority, isEnqueued = queue.priorities[c.waiting.Name]
	return priority, isEnqueued
}

// check returns what is wrong with the queue after the change, or "".
func (c *conflictChange) check(t *testing.T) string {
	t.Helper()
	before := apikey.FindConflict(&c.waiting, []v1alpha1.APIKey{*c.former})
	if before == nil {
		return "" // the key does not wait for it
	}
	setStalled(&c.waiting, metav1.ConditionFalse, before.Reason, before.Message)
	var after *apikey.Conflict
	if c.current != nil {
		after = apikey.FindConflict(&c.waiting, []v1alpha1.APIKey{*c.current})
	}
	priority, isEnqueued := c.deliver(t)
	switch {
	case after == nil && (!isEnqueued || priority != priorityNew):
		return "the conflict has ended"
	case after != nil && after.Message == before.Message && isEnqueued:
		return "the conflict is the same, but the key is enqueued"
	case after != nil && after.Reason == v1alpha1.ReasonTokenHashConflict && after.Message != before.Message && !isEnqueued:
		return "the app name is free, but the hash is not"
	default:
		return ""
	}
}

// TestInvariant10_EachChangeThatEndsAConflictEnqueuesTheKeyThatWaits changes a key from each state to each other one, deletes it, and
// replaces it by another object of its name. A key that waits for it is enqueued if its conflict ends, and causes no work if that stays the
// same. In a large group, other keys wait too, which come later.
func TestInvariant10_EachChangeThatEndsAConflictEnqueuesTheKeyThatWaits(t *testing.T) {
	t.Parallel()
	const composed, decomposed = "Caf\u00e9", "Cafe\u0301"
	created := func(after time.Duration) func(*v1alpha1.APIKey) {
		return func(key *v1alpha1.APIKey) { key.CreationTimestamp = metav1.NewTime(time.Now().Add(after)) }
	}
	var large []v1alpha1.APIKey
	for i := range 20 {
		large = append(large, *newKey(fmt.Sprint("later-", i), appName(composed), tokenHash(hashA), created(time.Hour)))
	}
	waiting := map[string]*v1alpha1.APIKey{
		"the app name":              newKey("waiting", appName(decomposed)),
		"the hash":                  newKey("waiting", tokenHash(hashA)),
		"the app name and the hash": newKey("waiting", appName(decomposed), tokenHash(hashA)),
	}
	holders := map[string]*v1alpha1.APIKey{
		"older":             newKey("holder", appName(composed), created(-time.Hour)),
		"younger":           newKey("holder", appName(composed), created(time.Minute)),
		"older, imported":   newKey("holder", appName(composed), created(-time.Hour), tokenHash(hashA)),
		"younger, imported": newKey("holder", appName(composed), created(time.Minute), tokenHash(hashA)),
	}
	replacement := newKey("holder", appName(composed), created(time.Hour), func(key *v1alpha1.APIKey) { key.UID = "replacement" })
	changes := append(allStates(),
		keyState{"deleted", func(key *v1alpha1.APIKey) { key.UID = "" }},
		keyState{"replaced", func(key *v1alpha1.APIKey) { *key = *replacement.DeepCopy() }})

	for kind, holder := range holders {
		for what, key := range waiting {
			for _, from := range allStates() {
				for _, to := range changes {
					for _, others := range [][]v1alpha1.APIKey{nil, large} {
						change := &conflictChange{former: holder.DeepCopy(), current: holder.DeepCopy(), waiting: *key.DeepCopy(), others: others}
						from.change(change.former)
						if to.change(change.current); change.current.UID == "" {
							change.current = nil
						}
						if problem := change.check(t); problem != "" {
							t.Errorf("a key waits for %s, as do %d others. When the holder (%s) was%s and is%s: %s",
								what, len(others), kind, from.description, to.description, problem)
						}
					}
				}
			}
		}
	}
}

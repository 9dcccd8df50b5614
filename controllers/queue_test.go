// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// queueUnderTest is the queue and its workers. A worker keeps its request until the test finishes it.
type queueUnderTest struct {
	*fairQueue
	idle    chan struct{}
	running []reconcile.Request
	given   chan reconcile.Request
}

func newQueueUnderTest(t *testing.T) *queueUnderTest {
	t.Helper()
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Millisecond, time.Second)
	q := &queueUnderTest{
		fairQueue: newFairQueue("test", limiter, logr.Discard()),
		idle:      make(chan struct{}, workers), given: make(chan reconcile.Request, workers),
	}
	for range workers {
		q.idle <- struct{}{}
	}
	go func() {
		for range q.idle {
			request, shutdown := q.Get()
			if shutdown {
				return
			}
			q.given <- request
		}
	}()
	t.Cleanup(func() {
		q.ShutDown()
		close(q.idle)
	})
	return q
}

// add adds requests, and returns the number of running requests of the namespace.
func (q *queueUnderTest) add(namespace string, count, priority int) int {
	for i := range count {
		name := types.NamespacedName{Namespace: namespace, Name: fmt.Sprint(priority, "-", i)}
		q.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, reconcile.Request{NamespacedName: name})
	}
	return q.runningOf(namespace)
}

func (q *queueUnderTest) runningOf(namespace string) (count int) {
	synctest.Wait()
	for len(q.given) > 0 {
		q.running = append(q.running, <-q.given)
	}
	for _, request := range q.running {
		if request.Namespace == namespace {
			count++
		}
	}
	return count
}

// finish ends the request that has run the longest, and returns it.
func (q *queueUnderTest) finish() reconcile.Request {
	first := q.running[0]
	q.running = q.running[1:]
	q.Done(first)
	q.idle <- struct{}{}
	q.runningOf("")
	return first
}

func TestInvariant10_NoNamespaceHoldsAllWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueUnderTest(t)
		if got := q.add("busy", 1_000, priorityNew); got != workersPerNamespace {
			t.Errorf("a namespace has %d workers, want %d", got, workersPerNamespace)
		}
		if got := q.add("refused", 1_000, priorityDeferred); got != deferredWorkersPerNamespace {
			t.Errorf("deferred work of a namespace has %d workers, want %d", got, deferredWorkersPerNamespace)
		}
		if got := q.add("refused", 1, priorityNew); got != deferredWorkersPerNamespace+1 {
			t.Error("a new key waits for deferred work")
		}
		for i := range 20 {
			q.add(fmt.Sprint("refused-", i), 10, priorityDeferred)
		}
		if q.deferred != deferredWorkers {
			t.Errorf("deferred work has %d workers, want %d", q.deferred, deferredWorkers)
		}
		if got := q.add("other", 1, priorityNew); got != 1 {
			t.Error("a new key of another namespace waits")
		}
		if got := q.Len(); got != 1_000+1_000+1+20*10+1-len(q.running) {
			t.Errorf("%d requests wait", got)
		}
	})
}

func TestInvariant10_EveryThrottledRequestRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueUnderTest(t)
		want := 0
		for i := range 12 {
			namespace := fmt.Sprint("namespace-", i)
			for _, priority := range []int{priorityDeferred, priorityUpdate, priorityNew} {
				q.add(namespace, 30, priority)
				q.add(namespace, 30, priority) // again, like events
				want += 30
			}
		}
		done := map[reconcile.Request]bool{}
		for len(q.running) > 0 {
			done[q.finish()] = true
		}
		if len(done) != want || q.Len() != 0 || len(q.throttled) != 0 || len(q.busy) != 0 || q.deferred != 0 {
			t.Errorf("%d of %d requests ran, %d are left; throttled %v, busy %v, %d", len(done), want, q.Len(), q.throttled, q.busy, q.deferred)
		}
	})
}

func TestFairQueue_AThrottledRequestOfAHigherPriorityIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueUnderTest(t)
		q.add("busy", workersPerNamespace+20, priorityUpdate)
		urgent := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "busy", Name: fmt.Sprint(priorityUpdate, "-", workersPerNamespace+15)}}
		q.AddWithOpts(priorityqueue.AddOpts{Priority: new(priorityNew)}, urgent)
		synctest.Wait()
		q.finish()
		if got := q.running[len(q.running)-1]; got != urgent {
			t.Errorf("the next request is %s, want %s", got, urgent)
		}
	})
}

// eagerQueue returns a request again before its Done returns.
type eagerQueue struct {
	priorityqueue.PriorityQueue[reconcile.Request]
	afterDone func()
}

func (q eagerQueue) Done(request reconcile.Request) {
	q.PriorityQueue.Done(request)
	q.afterDone()
}

func TestInvariant10_ARequestThatRunsAgainAtOnceReleasesItsWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Millisecond, time.Second)
		q := newFairQueue("test", limiter, logr.Discard())
		defer q.ShutDown()
		getAgain := sync.OnceFunc(func() { q.Get() }) // another worker
		q.PriorityQueue = eagerQueue{q.PriorityQueue, getAgain}
		request := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "key"}}
		deferred := priorityqueue.AddOpts{Priority: new(priorityDeferred)}
		q.AddWithOpts(deferred, request)
		q.Get()
		q.AddWithOpts(deferred, request) // while it runs, like the event of its status write
		q.Done(request)
		q.Done(request)
		if len(q.running) != 0 || len(q.busy) != 0 || q.deferred != 0 {
			t.Errorf("no request runs, but the queue counts %v, %v and %d", q.running, q.busy, q.deferred)
		}
	})
}

// TestInvariant10_HandoversPrecedeOtherDeferredWork checks that no rotation starts while the new tokens of earlier ones wait for a
// worker, in the order in which they wait.
func TestInvariant10_HandoversPrecedeOtherDeferredWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueUnderTest(t)
		const count = 20
		q.add("rotates", count, priorityDeferred)
		if got := q.add("rotates", count, priorityHandover); got != deferredWorkersPerNamespace {
			t.Errorf("%d workers rotate the keys of a namespace, want %d", got, deferredWorkersPerNamespace)
		}
		if got := q.add("rotates", 1, priorityNew); got != deferredWorkersPerNamespace+1 {
			t.Error("a new key waits for rotations")
		}
		for range deferredWorkersPerNamespace {
			q.finish() // what ran before
		}
		for i := 0; i < count; {
			finished := q.finish().Name
			if finished == fmt.Sprint(priorityNew, "-", 0) {
				continue
			}
			if want := fmt.Sprint(priorityHandover, "-", i); finished != want {
				t.Fatalf("the queue returned %s, want the next handover %s", finished, want)
			}
			i++
		}
	})
}

// TestInvariant10_ThrottledRequestsKeepTheirTurn has many namespaces wait for few workers, so that requests are resumed without a free worker.
func TestInvariant10_ThrottledRequestsKeepTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueUnderTest(t)
		const namespaces, count = 2 * deferredWorkers, 30
		for i := range namespaces {
			q.add(fmt.Sprint(i), count, priorityDeferred)
		}
		ended := map[string]int{}
		for range namespaces * count {
			finished := q.finish()
			position, err := strconv.Atoi(strings.TrimPrefix(finished.Name, fmt.Sprint(priorityDeferred, "-")))
			if err != nil {
				t.Fatal(err)
			}
			if late := ended[finished.Namespace] - position; late > 2*deferredWorkersPerNamespace {
				t.Errorf("%d requests of the namespace overtook the request %d", late, position)
			}
			ended[finished.Namespace]++
		}
	})
}

// TestInvariant10_DeferredWorkOfAHigherPriorityReleasesItsWorker resumes half of the requests as deferred work. They then run at a higher
// priority, with which they were added before for a later time.
func TestInvariant10_DeferredWorkOfAHigherPriorityReleasesItsWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueueUnderTest(t)
		for i := range deferredWorkers {
			q.add(fmt.Sprint("busy-", i), 1, priorityDeferred)
		}
		const count = 50
		for i := range count {
			q.add(fmt.Sprint("waits-", i), 1, priorityDeferred)
			urgent := fmt.Sprint("urgent-", i)
			q.add(urgent, 1, priorityDeferred)
			name := types.NamespacedName{Namespace: urgent, Name: fmt.Sprint(priorityDeferred, "-", 0)}
			q.AddWithOpts(priorityqueue.AddOpts{After: time.Hour, Priority: new(priorityDeadline)}, reconcile.Request{NamespacedName: name})
		}
		ran := 0
		for ; len(q.running) > 0; ran++ {
			q.finish()
		}
		if want := deferredWorkers + 2*count; ran != want {
			t.Errorf("%d of %d requests ran", ran, want)
		}
	})
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"maps"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// How many reconciles run at a time. They wait for the API server more than they work, and what they wait for may be slow because of
// what a tenant did: an admission webhook that refuses each Secret after 10 seconds holds a worker for as long. So a namespace has few
// of the workers, and work that can wait, which is all that fails again and again, has fewer.
const (
	workers             = 32
	workersPerNamespace = 8

	deferredWorkers             = 8
	deferredWorkersPerNamespace = 2
)

// fairQueue is the priority queue of controller-runtime with limits: it parks a request whose namespace, or whose class, has all the
// workers that it may have, until one of them is done. As many requests of a namespace may be ready, at each priority: a namespace is not
// behind the many keys of another one either.
type fairQueue struct {
	priorityqueue.PriorityQueue[reconcile.Request]

	mu      sync.Mutex
	running map[reconcile.Request]int // their priorities
	busy    map[string]busyWorkers    // by namespace
	// deferred is how many workers do work that can wait, in all namespaces.
	deferred int
	ready    map[reconcile.Request]int // the priorities of those that were added
	share    map[class]int             // how many of them each class has
	parked   map[string]parkedRequests // by namespace
}

// busyWorkers are the workers of one namespace.
type busyWorkers struct{ all, deferred int }

// class is the requests of one namespace at one priority.
type class struct {
	namespace string
	priority  int
}

// parkedRequests are those of one namespace: each once, at the highest priority that it was added with.
type parkedRequests struct {
	priority map[reconcile.Request]int
	inOrder  map[int][]reconcile.Request // by priority; a request whose priority was raised is in two
}

func newFairQueue(
	controller string, limiter workqueue.TypedRateLimiter[reconcile.Request], log logr.Logger,
) *fairQueue {
	return &fairQueue{
		PriorityQueue: priorityqueue.New(controller, func(o *priorityqueue.Opts[reconcile.Request]) {
			o.Log, o.RateLimiter = log, limiter
		}),
		running: map[reconcile.Request]int{},
		busy:    map[string]busyWorkers{},
		ready:   map[reconcile.Request]int{},
		share:   map[class]int{},
		parked:  map[string]parkedRequests{},
	}
}

// Add adds a request at the priority 0.
func (q *fairQueue) Add(request reconcile.Request) {
	q.AddWithOpts(priorityqueue.AddOpts{}, request)
}

// AddWithOpts adds requests, or parks those that are ready at once when their namespace has its share of the queue.
func (q *fairQueue) AddWithOpts(options priorityqueue.AddOpts, requests ...reconcile.Request) {
	for _, request := range requests {
		if options.After > 0 || options.RateLimited || q.mayBeReady(request, ptr.Deref(options.Priority, 0)) {
			q.PriorityQueue.AddWithOpts(options, request)
		}
	}
}

// Get returns the next request that may run.
func (q *fairQueue) Get() (request reconcile.Request, shutdown bool) {
	request, _, shutdown = q.GetWithPriority()
	return request, shutdown
}

// GetWithPriority returns the next request that may run, and its priority.
func (q *fairQueue) GetWithPriority() (request reconcile.Request, priority int, shutdown bool) {
	for {
		request, priority, shutdown = q.PriorityQueue.GetWithPriority()
		if shutdown || q.start(request, priority) {
			return request, priority, shutdown
		}
		q.PriorityQueue.Done(request)
	}
}

// Done ends the run of a request, and puts parked ones, which may run now, back into the queue.
func (q *fairQueue) Done(request reconcile.Request) {
	resumed := q.end(request) // first: from Done on, the request may run again
	q.PriorityQueue.Done(request)
	for next, priority := range resumed {
		q.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, next)
	}
}

// Len returns how many requests are ready or parked.
func (q *fairQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	length := q.PriorityQueue.Len()
	for _, parked := range q.parked {
		length += len(parked.priority)
	}
	return length
}

// mayBeReady counts a request among those that are ready, or parks it.
func (q *fairQueue) mayBeReady(request reconcile.Request, priority int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ready := q.ready[request]; ready {
		return true
	}
	if _, running := q.running[request]; running {
		return true // the queue keeps it until it is done
	}
	if !q.hasShare(request.Namespace, priority) {
		q.parked[request.Namespace] = q.parked[request.Namespace].add(request, priority)
		return false
	}
	q.ready[request] = priority
	q.share[class{request.Namespace, priority}]++
	return true
}

func (q *fairQueue) hasShare(namespace string, priority int) bool {
	ready, busy := q.share[class{namespace, priority}], q.busy[namespace]
	if canWait(priority) {
		return ready+busy.deferred < deferredWorkersPerNamespace
	}
	return ready+busy.all < workersPerNamespace
}

// start counts a request among those that run, or parks it.
func (q *fairQueue) start(request reconcile.Request, priority int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if former, ok := q.ready[request]; ok {
		delete(q.ready, request)
		of := class{request.Namespace, former}
		if q.share[of]--; q.share[of] == 0 {
			delete(q.share, of)
		}
	}
	parked := q.parked[request.Namespace]
	if !q.mayRun(request.Namespace, priority) {
		q.parked[request.Namespace] = parked.add(request, priority)
		return false
	}
	if parked.remove(request); len(parked.priority) == 0 {
		delete(q.parked, request.Namespace)
	}
	q.running[request] = priority
	q.count(request.Namespace, priority, 1)
	return true
}

// end takes a request off those that run, and returns the parked ones that may run instead, with their priorities: one of its namespace,
// and when a worker for work that can wait is free, one of that work. The worker may have been free before: a request that was resumed for
// it may have become urgent meanwhile.
func (q *fairQueue) end(request reconcile.Request) map[reconcile.Request]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	priority, ran := q.running[request]
	if !ran {
		return nil
	}
	delete(q.running, request)
	q.count(request.Namespace, priority, -1)
	resumed := map[reconcile.Request]int{}
	q.resume(request.Namespace, anyPriority, resumed)
	if q.deferred < deferredWorkers {
		for namespace := range q.parked { // in no order: each has the same chance
			if q.resume(namespace, canWait, resumed) {
				break
			}
		}
	}
	return resumed
}

func anyPriority(int) bool { return true }

// resume takes the first parked request of a namespace, of those whose priority matches, that may run. It says whether there is one.
func (q *fairQueue) resume(namespace string, matches func(priority int) bool, into map[reconcile.Request]int) (found bool) {
	parked, ok := q.parked[namespace]
	if !ok {
		return false
	}
	for _, priority := range slices.Backward(slices.Sorted(maps.Keys(parked.inOrder))) {
		if !matches(priority) || !q.mayRun(namespace, priority) || !q.hasShare(namespace, priority) {
			continue
		}
		if request, ok := parked.first(priority); ok {
			into[request] = priority
			found = true
			break
		}
	}
	if len(parked.priority) == 0 {
		delete(q.parked, namespace)
	}
	return found
}

func (q *fairQueue) mayRun(namespace string, priority int) bool {
	busy := q.busy[namespace]
	if canWait(priority) && (busy.deferred >= deferredWorkersPerNamespace || q.deferred >= deferredWorkers) {
		return false
	}
	return busy.all < workersPerNamespace
}

func (q *fairQueue) count(namespace string, priority, change int) {
	busy := q.busy[namespace]
	busy.all += change
	if canWait(priority) {
		busy.deferred += change
		q.deferred += change
	}
	if q.busy[namespace] = busy; busy.all == 0 {
		delete(q.busy, namespace)
	}
}

// add returns the parked requests with one more.
func (p parkedRequests) add(request reconcile.Request, priority int) parkedRequests {
	if p.priority == nil {
		p = parkedRequests{priority: map[reconcile.Request]int{}, inOrder: map[int][]reconcile.Request{}}
	}
	former, ok := p.priority[request]
	if !ok {
		parkedKeys.Inc()
	}
	if !ok || former < priority {
		p.priority[request] = priority
		p.inOrder[priority] = append(p.inOrder[priority], request)
	}
	return p
}

func (p parkedRequests) remove(request reconcile.Request) {
	if _, ok := p.priority[request]; ok {
		parkedKeys.Dec()
		delete(p.priority, request)
	}
}

// first takes the first request of a priority.
func (p parkedRequests) first(priority int) (reconcile.Request, bool) {
	for len(p.inOrder[priority]) > 0 {
		request := p.inOrder[priority][0]
		p.inOrder[priority] = p.inOrder[priority][1:]
		if current, ok := p.priority[request]; ok && current == priority {
			p.remove(request)
			return request, true
		}
	}
	delete(p.inOrder, priority)
	return reconcile.Request{}, false
}

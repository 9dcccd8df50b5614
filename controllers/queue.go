// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// The numbers of workers. A tenant can make calls of the API server slow: an admission webhook that refuses each Secret after 10 seconds
// occupies a worker for as long. So a namespace may use only some of the workers. Deferred work, to which all repeated failures belong, may
// use even fewer.
const (
	workers             = 32
	workersPerNamespace = 8

	deferredWorkers             = 8
	deferredWorkersPerNamespace = 2
)

// fairQueue is the priority queue of controller-runtime with limits for each namespace and for deferred work. It throttles a request that
// exceeds a limit: the request waits outside the priority queue until a worker of its namespace is done. The limits also apply to the
// requests in the priority queue, so that the many keys of one namespace do not delay those of another.
type fairQueue struct {
	priorityqueue.PriorityQueue[reconcile.Request]

	mu      sync.Mutex
	running map[reconcile.Request]int // the priorities of the requests that workers process
	busy    map[string]busyWorkers    // by namespace
	// deferred is the number of workers that do deferred work, in all namespaces.
	deferred  int
	ready     map[reconcile.Request]place  // the places of the requests in the priority queue
	share     map[class]int                // the number of ready requests of each class
	throttled map[string]throttledRequests // by namespace
	lastTurn  uint64
}

// place is the place of a request among those of its namespace: of one priority, the lowest turn comes first. A request keeps its turn
// until it runs or gets a higher priority.
type place struct {
	priority int
	turn     uint64
}

// busyWorkers counts the workers that process requests of one namespace.
type busyWorkers struct{ all, deferred int }

// class identifies the requests of one namespace that have the same priority.
type class struct {
	namespace string
	priority  int
}

// throttledRequests holds the throttled requests of one namespace, each at the highest priority with which it was added.
type throttledRequests struct {
	priority map[reconcile.Request]int
	inOrder  map[int][]throttledRequest // by priority; a request whose priority was raised is in two of them
}

type throttledRequest struct {
	reconcile.Request
	turn uint64
}

func newFairQueue(
	controller string, limiter workqueue.TypedRateLimiter[reconcile.Request], log logr.Logger,
) *fairQueue {
	return &fairQueue{
		PriorityQueue: priorityqueue.New(controller, func(o *priorityqueue.Opts[reconcile.Request]) {
			o.Log, o.RateLimiter = log, limiter
		}),
		running:   map[reconcile.Request]int{},
		busy:      map[string]busyWorkers{},
		ready:     map[reconcile.Request]place{},
		share:     map[class]int{},
		throttled: map[string]throttledRequests{},
	}
}

// Add adds a request with the priority 0.
func (q *fairQueue) Add(request reconcile.Request) {
	q.AddWithOpts(priorityqueue.AddOpts{}, request)
}

// AddWithOpts adds the requests. It throttles those without a delay whose namespace already has its share of the queue.
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

// Done marks a request as processed, and adds the throttled requests that may run now.
func (q *fairQueue) Done(request reconcile.Request) {
	resumed := q.end(request) // before Done, after which the request may run again
	q.PriorityQueue.Done(request)
	for next, priority := range resumed {
		q.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, next)
	}
}

// Len returns the number of ready and throttled requests.
func (q *fairQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	length := q.PriorityQueue.Len()
	for _, throttled := range q.throttled {
		length += len(throttled.priority)
	}
	return length
}

// mayBeReady counts the request as ready, or throttles it and returns false.
func (q *fairQueue) mayBeReady(request reconcile.Request, priority int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ready := q.ready[request]; ready {
		return true
	}
	if _, running := q.running[request]; running {
		return true // the priority queue keeps it until it is done
	}
	at := q.nextPlace(priority)
	if !q.hasShare(request.Namespace, priority) {
		q.throttled[request.Namespace] = q.throttled[request.Namespace].add(request, at)
		return false
	}
	q.countReady(request, at)
	return true
}

// nextPlace returns the place of a request behind all others of the priority.
func (q *fairQueue) nextPlace(priority int) place {
	q.lastTurn++
	return place{priority, q.lastTurn}
}

func (q *fairQueue) countReady(request reconcile.Request, at place) {
	if _, ready := q.ready[request]; !ready {
		q.ready[request] = at
		q.share[class{request.Namespace, at.priority}]++
	}
}

// hasShare reports whether one more request of the namespace and priority may be ready.
func (q *fairQueue) hasShare(namespace string, priority int) bool {
	ready, busy := q.share[class{namespace, priority}], q.busy[namespace]
	if isDeferred(priority) {
		return ready+busy.deferred < deferredWorkersPerNamespace
	}
	return ready+busy.all < workersPerNamespace
}

// start counts the request as running, or throttles it and returns false. A request that was ready keeps its turn: more of them may have
// been resumed, in several namespaces, than workers are free.
func (q *fairQueue) start(request reconcile.Request, priority int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	former, wasReady := q.ready[request]
	if wasReady {
		delete(q.ready, request)
		of := class{request.Namespace, former.priority}
		if q.share[of]--; q.share[of] == 0 {
			delete(q.share, of)
		}
	}
	throttled := q.throttled[request.Namespace]
	if !q.mayRun(request.Namespace, priority) {
		at := place{priority, former.turn}
		if !wasReady {
			at = q.nextPlace(priority)
		}
		q.throttled[request.Namespace] = throttled.add(request, at)
		return false
	}
	if throttled.remove(request); len(throttled.priority) == 0 {
		delete(q.throttled, request.Namespace)
	}
	q.running[request] = priority
	q.count(request.Namespace, priority, 1)
	return true
}

// end removes the request from the running ones, and returns the throttled requests that may run instead, with their priorities. One is of
// its namespace. Another one is deferred work of any namespace, if a worker for that is free. That worker may have been free before,
// because a request that was resumed for it may have got a higher priority since.
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
		for namespace := range q.throttled { // in random order, so that each has the same chance
			if q.resume(namespace, isDeferred, resumed) {
				break
			}
		}
	}
	return resumed
}

func anyPriority(int) bool { return true }

// resume moves the first throttled request of the namespace that matches and may run to the map, and reports whether it found one.
func (q *fairQueue) resume(namespace string, matches func(priority int) bool, into map[reconcile.Request]int) (found bool) {
	throttled, ok := q.throttled[namespace]
	if !ok {
		return false
	}
	for _, priority := range slices.Backward(slices.Sorted(maps.Keys(throttled.inOrder))) {
		if !matches(priority) || !q.mayRun(namespace, priority) || !q.hasShare(namespace, priority) {
			continue
		}
		if first, ok := throttled.first(priority); ok {
			into[first.Request] = priority
			q.countReady(first.Request, place{priority, first.turn}) // else a second one could be resumed in its place
			found = true
			break
		}
	}
	if len(throttled.priority) == 0 {
		delete(q.throttled, namespace)
	}
	return found
}

// mayRun reports whether a worker may process one more request of the namespace and priority.
func (q *fairQueue) mayRun(namespace string, priority int) bool {
	busy := q.busy[namespace]
	if isDeferred(priority) && (busy.deferred >= deferredWorkersPerNamespace || q.deferred >= deferredWorkers) {
		return false
	}
	return busy.all < workersPerNamespace
}

func (q *fairQueue) count(namespace string, priority, change int) {
	busy := q.busy[namespace]
	busy.all += change
	if isDeferred(priority) {
		busy.deferred += change
		q.deferred += change
	}
	if q.busy[namespace] = busy; busy.all == 0 {
		delete(q.busy, namespace)
	}
}

// add returns the requests with one more at a place.
func (p throttledRequests) add(request reconcile.Request, at place) throttledRequests {
	if p.priority == nil {
		p = throttledRequests{priority: map[reconcile.Request]int{}, inOrder: map[int][]throttledRequest{}}
	}
	former, ok := p.priority[request]
	if !ok {
		throttledKeys.Inc()
	}
	if !ok || former < at.priority {
		p.priority[request] = at.priority
		waiting := p.inOrder[at.priority]
		i, _ := slices.BinarySearchFunc(waiting, at.turn, func(r throttledRequest, turn uint64) int { return cmp.Compare(r.turn, turn) })
		p.inOrder[at.priority] = slices.Insert(waiting, i, throttledRequest{request, at.turn})
	}
	return p
}

func (p throttledRequests) remove(request reconcile.Request) {
	if _, ok := p.priority[request]; ok {
		throttledKeys.Dec()
		delete(p.priority, request)
	}
}

// first removes and returns the first request of the priority.
func (p throttledRequests) first(priority int) (throttledRequest, bool) {
	for len(p.inOrder[priority]) > 0 {
		first := p.inOrder[priority][0]
		p.inOrder[priority] = p.inOrder[priority][1:]
		if current, ok := p.priority[first.Request]; ok && current == priority {
			p.remove(first.Request)
			return first, true
		}
	}
	delete(p.inOrder, priority)
	return throttledRequest{}, false
}

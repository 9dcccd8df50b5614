// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// queue is a priority queue like that of controller-runtime, on the virtual clock. Sometimes another request than the first one is next.
type queue struct {
	priorityqueue.PriorityQueue[reconcile.Request] // the code under test calls none of its other methods
	*process
	work    func() // called when a request may be ready
	limiter workqueue.TypedRateLimiter[reconcile.Request]
	items   []*item                        // in the order in which they were added
	locked  map[reconcile.Request]struct{} // that workers process
}

type item struct {
	reconcile.Request
	priority int
	readyAt  time.Duration
}

func newQueue(p *process, work func()) *queue {
	return &queue{
		process: p, work: work, locked: map[reconcile.Request]struct{}{},
		limiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, 1000*time.Second),
	}
}

// AddWithOpts adds requests. A request that is in the queue keeps the higher priority, the shorter delay and its place.
func (q *queue) AddWithOpts(options priorityqueue.AddOpts, requests ...reconcile.Request) {
	for _, request := range requests {
		delay := options.After
		if options.RateLimited {
			delay = q.limiter.When(request)
		}
		added := &item{request, ptr.Deref(options.Priority, 0), (q.now + delay).Truncate(time.Millisecond)}
		if at := slices.IndexFunc(q.items, func(i *item) bool { return i.Request == request }); at < 0 {
			q.items = append(q.items, added)
		} else {
			added.priority, added.readyAt = max(added.priority, q.items[at].priority), min(added.readyAt, q.items[at].readyAt)
			q.items[at] = added
		}
		q.at(added.readyAt, q.work)
	}
}

// pop removes and returns the first request that is ready and that no worker processes. The worker must call done.
func (q *queue) pop() (reconcile.Request, int, bool) {
	var ready []*item
	for _, candidate := range q.items {
		if _, isLocked := q.locked[candidate.Request]; !isLocked && candidate.readyAt <= q.now {
			ready = append(ready, candidate)
		}
	}
	if len(ready) == 0 {
		return reconcile.Request{}, 0, false
	}
	next := slices.MinFunc(ready, func(a, b *item) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.readyAt, b.readyAt))
	})
	if len(ready) > 1 && q.chance(10) {
		next = one(&q.choices, ready...)
	}
	q.items = slices.DeleteFunc(q.items, func(i *item) bool { return i == next })
	q.locked[next.Request] = struct{}{}
	return next.Request, next.priority, true
}

// done allows workers to process the request again.
func (q *queue) done(request reconcile.Request) {
	delete(q.locked, request)
	q.after(0, q.work)
}

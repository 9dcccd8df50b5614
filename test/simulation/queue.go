// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
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
	items   []*item
}

type item struct {
	reconcile.Request
	priority int
	readyAt  time.Duration
}

func newQueue(p *process, work func()) *queue {
	return &queue{
		process: p, work: work,
		limiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, 1000*time.Second),
	}
}

// AddWithOpts adds requests. A request that is in the queue keeps the higher priority and the shorter delay.
func (q *queue) AddWithOpts(options priorityqueue.AddOpts, requests ...reconcile.Request) {
	for _, request := range requests {
		delay := options.After
		if options.RateLimited {
			delay = q.limiter.When(request)
		}
		added := &item{request, ptr.Deref(options.Priority, 0), (q.now + delay).Truncate(time.Millisecond)}
		if former := q.remove(request); former != nil {
			added.priority = max(added.priority, former.priority)
			added.readyAt = min(added.readyAt, former.readyAt)
		}
		q.items = append(q.items, added)
		q.at(added.readyAt, q.work)
	}
}

func (q *queue) remove(request reconcile.Request) *item {
	for i, former := range q.items {
		if former.Request == request {
			q.items = append(q.items[:i:i], q.items[i+1:]...)
			return former
		}
	}
	return nil
}

// pop removes and returns the first request that is ready.
func (q *queue) pop() (reconcile.Request, int, bool) {
	var ready []*item
	first := 0
	for _, candidate := range q.items {
		if candidate.readyAt > q.now {
			continue
		}
		if ready = append(ready, candidate); candidate.priority > ready[first].priority {
			first = len(ready) - 1
		}
	}
	if len(ready) == 0 {
		return reconcile.Request{}, 0, false
	}
	if len(ready) > 1 && q.chance(10) {
		first = q.below(len(ready))
	}
	next := ready[first]
	q.remove(next.Request)
	return next.Request, next.priority, true
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"container/heap"
	"time"
)

// schedule runs events in the order of their virtual times. One event runs at a time: nothing else of the simulation runs until it returns.
//
// The clock is that of the bubble of testing/synctest, so that the timers of the code under test follow it. No two instants are equal: an
// event has a number of nanoseconds that no other event has. A timer that an event starts can therefore never expire together with another
// event, which would leave their order to the Go scheduler.
type schedule struct {
	began time.Time
	now   time.Duration // since began
	steps stepHeap
	count int // of all events so far
}

// tick is the grid to which the clock is rounded up if an event has slept. Some sleeps have a jitter.
const tick = 100 * time.Millisecond

// after adds an event.
func (s *schedule) after(delay time.Duration, run func()) { s.at(s.now+max(delay, 0), run) }

// at adds an event at a time since the beginning.
func (s *schedule) at(at time.Duration, run func()) {
	s.count++
	at = max(at, s.now)
	heap.Push(&s.steps, step{at.Truncate(time.Millisecond) + time.Duration(s.count%int(time.Millisecond)), s.count, run})
}

// next runs the next event, and reports whether there was one.
func (s *schedule) next() bool {
	if len(s.steps) == 0 {
		return false
	}
	e := heap.Pop(&s.steps).(step)
	s.sleepUntil(e.at)
	e.run()
	if elapsed := time.Since(s.began); elapsed > s.now {
		s.sleepUntil(elapsed.Truncate(tick) + tick)
	}
	return true
}

func (s *schedule) sleepUntil(at time.Duration) {
	if at > s.now {
		time.Sleep(at - time.Since(s.began))
		s.now = at
	}
}

// clock returns the true time, which is also that of the API server.
func (s *schedule) clock() time.Time { return s.began.Add(s.now) }

type step struct {
	at     time.Duration
	number int
	run    func()
}

// stepHeap is a heap of events. See [heap.Interface].
type stepHeap []step

func (h stepHeap) Len() int { return len(h) }

func (h stepHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].number < h[j].number
}

func (h stepHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push adds an event.
func (h *stepHeap) Push(e any) { *h = append(*h, e.(step)) }

// Pop removes the last event.
func (h *stepHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = step{}
	*h = (*h)[:last]
	return e
}

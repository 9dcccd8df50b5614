// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import "time"

// profile has the probabilities of one run, in percent. Each run has another one: runs with few kinds of faults find what a run with all of
// them hides.
type profile struct {
	slowCalls   int // requests and responses that take long
	slowWatches int // events of watches that take long
	pauses      int // pauses of a process before it sends a request
	faults      int // requests that fail

	elected      bool          // one controller leads at a time
	workers      int           // of each controller
	skew         time.Duration // of clocks, at most
	actions      int           // the number of actions of clients
	disturbances int           // their number
}

func newProfile(s *simulation) profile {
	return profile{
		slowCalls:    one(&s.choices, 0, 2, 10, 30),
		slowWatches:  one(&s.choices, 0, 5, 30, 60),
		pauses:       one(&s.choices, 0, 0, 2, 10),
		faults:       one(&s.choices, 0, 0, 3, 15),
		elected:      s.chance(40),
		workers:      one(&s.choices, 1, 1, 2, 8),
		skew:         one(&s.choices, 0, 0, 3*time.Second, time.Minute),
		actions:      3 + s.below(12),
		disturbances: one(&s.choices, 0, 1, 3, 8),
	}
}

var (
	usualMilliseconds = [...]int{1, 1, 2, 3, 5, 10, 20, 50}
	longMilliseconds  = [...]int{100, 300, 1000, 3000, 6000, 9000, 12_000, 25_000}
)

// delay chooses a delay, which is long with a probability in percent.
func (s *simulation) delay(long int) time.Duration {
	choice := s.below(1000)
	if choice >= 1000-10*long {
		return milliseconds(longMilliseconds[choice%len(longMilliseconds)])
	}
	return milliseconds(usualMilliseconds[choice%len(usualMilliseconds)])
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// sendDelay is the time until a process sends a request of its task.
func (s *simulation) sendDelay() time.Duration { return s.delay(s.profile.pauses) }

// networkDelay is the time that a request or a response takes.
func (s *simulation) networkDelay() time.Duration { return s.delay(s.profile.slowCalls) }

// watchDelay is the time that an event of a watch takes.
func (s *simulation) watchDelay() time.Duration { return s.delay(s.profile.slowWatches) }

func (s *simulation) fate() fate {
	if !s.chance(s.profile.faults) {
		return fateNormal
	}
	return fate(1 + s.below(numberOfFates-1))
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package simulation runs the real reconcilers, and real authenticators, against a simulated Kubernetes API. One seed determines everything
// that happens: the order of events, their delays, crashes, pauses, lost requests, and what clients do. After each step, it checks the
// invariants of CONTRIBUTING.md. See docs/decisions/0020-simulation.md for what it models.
package simulation

import (
	"fmt"
	"time"
)

// simulation is one run.
type simulation struct {
	choices
	schedule
	profile profile

	server         *server
	controllers    []*controller
	leader         *controller
	authenticators []*authenticator
	users          *process // all clients
	collector      *process // the garbage collector
	consoles       []*process
	running        *task // that runs, or nil
	executing      *call // that the API server executes, or nil

	knowledge
	healedAt  time.Duration
	over      bool
	violation *violation
	counts    counts
	recording bool
	history   []string
}

// counts are the numbers of what happened in one run, or in several.
type counts struct{ events, requests, faults, disturbances, actions uint64 }

func (c *counts) add(more counts) {
	c.events += more.events
	c.requests += more.requests
	c.faults += more.faults
	c.disturbances += more.disturbances
	c.actions += more.actions
}

// violation is an invariant that does not hold.
type violation struct{ invariant, text string }

func (v *violation) String() string { return fmt.Sprintf("%q: %s", v.invariant, v.text) }

// violate records the first violation, which ends the run.
func (s *simulation) violate(invariant, format string, args ...any) {
	if s.violation == nil {
		s.violation = &violation{invariant, fmt.Sprintf(format, args...)}
		s.log("VIOLATION", func() string { return s.violation.String() })
	}
}

// newSimulation returns a run that has not begun. It must be called in a bubble of testing/synctest, which provides the virtual clock.
func newSimulation(c choices, recording bool) *simulation {
	s := &simulation{choices: c, schedule: schedule{began: time.Now()}, recording: recording, knowledge: newKnowledge()}
	s.profile = newProfile(s)
	s.server = newServer(s)
	s.users, s.collector = &process{simulation: s, name: "user", up: true}, &process{simulation: s, name: "garbage collector", up: true}
	for i := range 1 + s.below(3) {
		c := s.newController(fmt.Sprintf("controller-%d", i+1))
		c.skew = s.chooseSkew()
		s.controllers = append(s.controllers, c)
		if !s.profile.elected || i == 0 {
			c.start()
		}
	}
	s.leader = s.controllers[0]
	for i := range 1 + s.below(2) {
		a := s.newAuthenticator(fmt.Sprintf("authenticator-%d", i+1))
		a.skew = s.chooseSkew()
		s.authenticators = append(s.authenticators, a)
		a.start()
	}
	s.after(0, func() { s.act(s.profile.actions) })
	s.after(0, func() { s.disturb(s.profile.disturbances) })
	s.after(time.Minute, s.sendBookmarks)
	return s
}

// maxEvents is the maximum number of events of a run. Runs have about 500, and those with many keys some thousands.
const maxEvents = 100_000

// run makes the run until each key has settled, or an invariant is violated.
func (s *simulation) run() {
	for s.violation == nil && !s.over && s.next() {
		if s.counts.events++; s.counts.events > maxEvents {
			s.violate("10: no key is reconciled without end", "the run has %d events", s.counts.events)
		}
	}
	s.endTasks()
}

// endTasks ends the goroutines of all tasks.
func (s *simulation) endTasks() {
	s.recording = false
	for _, c := range s.controllers {
		c.crash()
	}
	for _, c := range s.consoles {
		c.crash()
	}
}

func (s *simulation) chooseSkew() time.Duration {
	if s.profile.skew == 0 {
		return 0
	}
	return time.Duration(s.below(21)-10) * s.profile.skew / 10
}

// sendBookmarks sends a bookmark to each watch once a minute.
func (s *simulation) sendBookmarks() {
	for _, w := range s.server.watchers {
		w.after(0, w.receiveBookmark)
	}
	s.after(time.Minute, s.sendBookmarks)
}

// log adds a line to the history. The text is a function because most runs record none.
func (s *simulation) log(actor string, text func() string) {
	if s.recording {
		s.history = append(s.history, fmt.Sprintf("%10.3fs  %-15s %s", s.now.Seconds(), actor, text()))
	}
}

func text(s string) func() string { return func() string { return s } }

// heal ends all disturbances and faults, after which each key must settle.
func (s *simulation) heal() {
	s.log("simulation", text("ends all disturbances"))
	s.profile.slowCalls, s.profile.slowWatches, s.profile.pauses, s.profile.faults = 0, 0, 0, 0
	s.profile.elected = true
	if s.server.restores > 0 {
		s.leader.crash() // users restart the controllers after a restore, as the documentation says
	}
	for _, c := range s.controllers {
		switch s.healProcess(c.process); {
		case c != s.leader:
			c.crash()
		case !c.up:
			c.start()
		}
	}
	for _, a := range s.authenticators {
		if s.healProcess(a.process); !a.up {
			a.start()
		}
	}
	if s.chance(50) {
		clear(s.server.refusals)
	}
	s.healedAt = s.now
	s.after(quietPeriod, s.settle)
}

func (s *simulation) healProcess(p *process) {
	p.skew, p.partitioned = 0, false
	p.resume()
}

const (
	// quietPeriod without a write ends a run, if each key has settled.
	quietPeriod = time.Minute
	// settlePeriod is the time within which each key must settle. The longest backoff of the controller is 5 minutes.
	settlePeriod = 15 * time.Minute
)

// settle ends the run when nothing has been written for a while and each key has settled.
func (s *simulation) settle() {
	problem := "the controllers still write"
	if s.now-s.lastWrite >= quietPeriod {
		problem = s.unsettled()
	}
	switch {
	case problem == "":
		s.over = true
	case s.now-s.healedAt > settlePeriod:
		s.violate("liveness: "+problem, "%s", s.describeUnsettled())
	default:
		s.after(quietPeriod/4, s.settle)
	}
}

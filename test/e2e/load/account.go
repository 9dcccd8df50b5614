// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxProblems is how many answers of a phase are told of in full.
const maxProblems = 20

// Phase is what became of the questions that were due while something was going on.
type Phase struct {
	// Name of what was going on.
	Name string
	// Start and End are when it did; End is zero until it has ended.
	Start, End time.Time
	// Asked is how many questions were due, Open how many of them are not answered yet.
	Asked, Open int
	// Refused is how many questions with a valid key and the right to what they asked were not granted.
	Refused int
	// LetThrough is how many of the other questions were granted.
	LetThrough int
	// Unanswered is how many of the other questions were neither granted nor refused with 401.
	Unanswered int
	// Retried is how many questions had to be asked on another connection.
	Retried int
	// Answers is how many answers had which kind of question and status, such as "read 200"; "none" is where none came.
	Answers map[string]int
	// P50, P99 and Max are the times from when questions were due until they were answered.
	P50, P99, Max time.Duration
	// Problems are the first answers that were not as they ought to be, also of those that another connection made good.
	Problems []Problem
}

// Problem is an answer that was not as it ought to be.
type Problem struct {
	// Time of the answer.
	Time time.Time
	// Question says which kind it was.
	Question string
	// Answer is its status, or why there is none.
	Answer string
}

// Account keeps account of questions and answers.
type Account struct {
	mu     sync.Mutex
	phases []*record
}

// record is a phase in the making.
type record struct {
	Phase
	latencies []time.Duration
}

// Begin begins a phase, and ends the one before.
func (a *Account) Begin(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if len(a.phases) > 0 {
		a.phases[len(a.phases)-1].End = now
	}
	a.phases = append(a.phases, &record{Phase: Phase{Name: name, Start: now, Answers: map[string]int{}}})
}

// Phase returns the last phase of this name, and whether there is one.
func (a *Account) Phase(name string) (Phase, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range slices.Backward(a.phases) {
		if r.Name == name {
			phase := r.Phase
			phase.Answers = maps.Clone(r.Answers)
			phase.Problems = slices.Clone(r.Problems)
			phase.P50, phase.P99, phase.Max = Quantiles(r.latencies)
			return phase, true
		}
	}
	return Phase{}, false
}

// Quantiles returns the median of these times, the one that 99 in 100 do not exceed, and the longest.
func Quantiles(times []time.Duration) (p50, p99, longest time.Duration) {
	if len(times) == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(times))
	last := len(sorted) - 1
	return sorted[last/2], sorted[last*99/100], sorted[last]
}

// entry is a question that is open.
type entry struct {
	account *Account
	phase   *record
	kind    kind
	fresh   bool
	due     time.Time
}

// open enters a question, in the phase that is going on.
func (a *Account) open(kind kind, fresh bool, due time.Time) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	phase := a.phases[len(a.phases)-1]
	phase.Asked++
	phase.Open++
	return &entry{account: a, phase: phase, kind: kind, fresh: fresh, due: due}
}

// failed enters that a connection failed.
func (e *entry) failed(err error) {
	e.account.mu.Lock()
	defer e.account.mu.Unlock()
	e.problem(err.Error())
}

// close enters the answer.
func (e *entry) close(answer Answer, err error) {
	e.account.mu.Lock()
	defer e.account.mu.Unlock()
	outcome := "none"
	if err == nil {
		outcome = strconv.Itoa(answer.Status)
	}
	e.phase.Open--
	e.phase.Answers[e.kind.name+" "+outcome]++
	e.phase.latencies = append(e.phase.latencies, time.Since(e.due))
	granted := err == nil && answer.Status/100 == 2
	switch {
	case e.kind.valid && !granted:
		e.phase.Refused++
	case !e.kind.valid && granted:
		e.phase.LetThrough++
	case !e.kind.valid && outcome != "401":
		e.phase.Unanswered++
	case answer.Retried:
		outcome += " by " + answer.Protocol + ", when it was asked again"
	default:
		return
	}
	if answer.Retried {
		e.phase.Retried++
	}
	if err != nil {
		outcome = err.Error()
	}
	e.problem(outcome)
}

func (e *entry) problem(answer string) {
	if len(e.phase.Problems) == maxProblems {
		return
	}
	connection := "kept"
	if e.fresh {
		connection = "fresh"
	}
	e.phase.Problems = append(e.phase.Problems, Problem{
		Time:     time.Now(),
		Question: fmt.Sprintf("%s on a %s connection", e.kind.name, connection),
		Answer:   answer,
	})
}

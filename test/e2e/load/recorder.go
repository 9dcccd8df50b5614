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

// maxProblems is how many problems a phase records.
const maxProblems = 20

// Phase is a period of the load, and the results of the requests that were due in it.
type Phase struct {
	// Name of the phase.
	Name string
	// Start and End of the phase. End is zero until the phase has ended.
	Start, End time.Time
	// Requests is how many requests were due, Pending how many of them have no response yet.
	Requests, Pending int
	// Refused is how many valid requests were not granted.
	Refused int
	// LetThrough is how many invalid requests were granted.
	LetThrough int
	// Unanswered is how many invalid requests were neither granted nor denied with 401.
	Unanswered int
	// Retried is how many requests were sent again on another connection.
	Retried int
	// Responses counts the responses by kind of request and status, such as "read 200". The status "none" is that of a request without one.
	Responses map[string]int
	// P50, P99 and Max are latencies, from the time when a request was due until its response.
	P50, P99, Max time.Duration
	// Problems are the first unexpected responses and failed connections. A retry may have succeeded.
	Problems []Problem
}

// Problem is an unexpected response or a failed connection.
type Problem struct {
	// Time of the response.
	Time time.Time
	// Request is the kind of request.
	Request string
	// Response is its status, or the reason why there is none.
	Response string
}

// Recorder records the results of requests by phase.
type Recorder struct {
	mu     sync.Mutex
	phases []*phaseRecord
}

// phaseRecord is a Phase whose quantiles are not computed yet.
type phaseRecord struct {
	Phase
	latencies []time.Duration
}

// Begin begins a phase, and ends the previous one.
func (r *Recorder) Begin(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if len(r.phases) > 0 {
		r.phases[len(r.phases)-1].End = now
	}
	r.phases = append(r.phases, &phaseRecord{Phase: Phase{Name: name, Start: now, Responses: map[string]int{}}})
}

// Phase returns the last phase of this name, and whether it exists.
func (r *Recorder) Phase(name string) (Phase, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range slices.Backward(r.phases) {
		if record.Name == name {
			phase := record.Phase
			phase.Responses = maps.Clone(record.Responses)
			phase.Problems = slices.Clone(record.Problems)
			phase.P50, phase.P99, phase.Max = Quantiles(record.latencies)
			return phase, true
		}
	}
	return Phase{}, false
}

// Quantiles returns the median, the 99th percentile and the maximum of these times.
func Quantiles(times []time.Duration) (p50, p99, longest time.Duration) {
	if len(times) == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(times))
	last := len(sorted) - 1
	return sorted[last/2], sorted[last*99/100], sorted[last]
}

// pendingRequest is a request without a response.
type pendingRequest struct {
	recorder      *Recorder
	phase         *phaseRecord
	kind          kind
	newConnection bool
	due           time.Time
}

// start records a request in the current phase.
func (r *Recorder) start(kind kind, newConnection bool, due time.Time) *pendingRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	phase := r.phases[len(r.phases)-1]
	phase.Requests++
	phase.Pending++
	return &pendingRequest{recorder: r, phase: phase, kind: kind, newConnection: newConnection, due: due}
}

// connectionFailed records that the connection failed.
func (p *pendingRequest) connectionFailed(err error) {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	p.addProblem(err.Error())
}

// finish records the response.
func (p *pendingRequest) finish(response Response, err error) {
	p.recorder.mu.Lock()
	defer p.recorder.mu.Unlock()
	outcome := "none"
	if err == nil {
		outcome = strconv.Itoa(response.Status)
	}
	p.phase.Pending--
	p.phase.Responses[p.kind.name+" "+outcome]++
	p.phase.latencies = append(p.phase.latencies, time.Since(p.due))
	granted := err == nil && response.Status/100 == 2
	switch {
	case p.kind.valid && !granted:
		p.phase.Refused++
	case !p.kind.valid && granted:
		p.phase.LetThrough++
	case !p.kind.valid && outcome != "401":
		p.phase.Unanswered++
	case response.Retried:
		outcome += " by " + response.Protocol + ", after a retry"
	default:
		return
	}
	if response.Retried {
		p.phase.Retried++
	}
	if err != nil {
		outcome = err.Error()
	}
	p.addProblem(outcome)
}

func (p *pendingRequest) addProblem(response string) {
	if len(p.phase.Problems) == maxProblems {
		return
	}
	connection := "existing"
	if p.newConnection {
		connection = "new"
	}
	p.phase.Problems = append(p.phase.Problems, Problem{
		Time:     time.Now(),
		Request:  fmt.Sprintf("%s (%s connection)", p.kind.name, connection),
		Response: response,
	})
}

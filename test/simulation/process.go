// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http/httptrace"
	"slices"
	"time"
)

// process is a process that may crash, be paused, or lose its connection to the API server.
type process struct {
	*simulation
	name        string
	up          bool
	incarnation int // of the process: each start is another one
	paused      bool
	partitioned bool
	skew        time.Duration // of its clock

	isController bool

	deferred []func() // events that happen when the process is no longer paused
	tasks    []*task  // that the process executes
}

// clock returns the time of the process's own clock.
func (p *process) clock() time.Time { return p.simulation.clock().Add(p.skew) }

// isCutOff reports whether the process cannot reach an API server.
func (p *process) isCutOff() bool { return p.partitioned || p.server.isStopped() }

// after adds an event of the process. It does not happen if the process crashes before.
func (p *process) after(delay time.Duration, run func()) { p.at(p.now+max(delay, 0), run) }

func (p *process) at(at time.Duration, run func()) {
	incarnation := p.incarnation
	var happen func()
	happen = func() {
		switch {
		case p.incarnation != incarnation || !p.up:
		case p.paused:
			p.deferred = append(p.deferred, happen)
		default:
			run()
		}
	}
	p.simulation.at(at, happen)
}

func (p *process) start() {
	p.up, p.paused, p.partitioned = true, false, false
	p.incarnation++
	p.log(p.name, text("starts"))
}

// crash ends the process. Requests that it has sent may still take effect.
func (p *process) crash() {
	if !p.up {
		return
	}
	p.log(p.name, text("crashes"))
	p.up, p.deferred = false, nil
	p.incarnation++
	tasks := p.tasks
	p.tasks = nil
	for _, t := range tasks {
		delete(p.expectedEvents, t)
		t.over = true
		t.stop() // its code ends, because all its requests fail
	}
}

func (p *process) pause() {
	p.log(p.name, text("is paused"))
	p.paused = true
}

// resume continues a paused process.
func (p *process) resume() {
	if !p.paused {
		return
	}
	p.log(p.name, text("continues"))
	p.paused = false
	for _, happen := range p.deferred {
		p.simulation.after(0, happen)
	}
	p.deferred = nil
}

// sender identifies a process between its start and its crash.
type sender struct {
	*process
	incarnation int
}

// task is code that runs until it sends a request, and continues with the response. Only one task runs at a time.
type task struct {
	process *process
	next    func() (*call, bool)
	stop    func()
	yield   func(*call) bool
	onEnd   func()
	over    bool
}

// errCrashed is the error of the requests of a process that has crashed.
var errCrashed = errors.New("the process has crashed")

// execute starts a task of the process. The function onEnd runs after it.
func (p *process) execute(run, onEnd func()) {
	t := &task{process: p, onEnd: onEnd}
	t.next, t.stop = iter.Pull(func(yield func(*call) bool) {
		t.yield = yield
		run()
	})
	p.tasks = append(p.tasks, t)
	t.continueRunning()
}

// continueRunning lets the task run until it sends a request, or ends.
func (t *task) continueRunning() {
	p := t.process
	p.running = t
	request, waits := t.next()
	p.running = nil
	if waits {
		p.send(request)
		return
	}
	t.over = true
	p.tasks = slices.DeleteFunc(p.tasks, func(other *task) bool { return other == t })
	t.onEnd()
}

// call is a request to the API server.
type call struct {
	ctx     context.Context
	name    func() string // for the history
	execute func() error  // at the API server
	isLocal bool          // the request does not leave the process

	task     *task
	sender   sender
	sent     time.Duration
	restores int // before it was sent
	err      error
	date     time.Time // when the API server executed it
	complete bool
}

// do sends a request, and returns when the process has the response.
func (p *process) do(ctx context.Context, request *call) error {
	request.ctx, request.task, request.sender = ctx, p.running, sender{p, p.incarnation}
	if !p.up || !request.task.yield(request) {
		return errCrashed
	}
	return request.err
}

// send sends the request of a task. The choices decide what becomes of it.
func (p *process) send(request *call) {
	if request.isLocal {
		p.after(p.sendDelay(), func() { p.respond(request, request.execute()) })
		return
	}
	p.after(p.sendDelay(), func() {
		if err := request.ctx.Err(); err != nil {
			p.respond(request, err)
			return
		}
		if trace := httptrace.ContextClientTrace(request.ctx); trace != nil && trace.WroteHeaders != nil {
			trace.WroteHeaders()
		}
		request.sent, request.restores = p.now, p.server.restores
		p.transmit(request, p.fate())
	})
}

// fate is what happens to a request.
type fate int

const (
	fateNormal fate = iota
	fateRequestLost
	fateResponseLost
	fateRefused       // by an API server that is too busy
	fateFailed        // before the effect
	fateFailedLate    // after the effect
	fateExecutedTwice // a proxy or the transport repeats it

	numberOfFates int = iota
)

var fateNames = [numberOfFates]string{
	"",
	"; the request is lost",
	"; the response is lost",
	"; the API server is too busy",
	"; the API server fails before it",
	"; the API server fails after it",
	"; the request is repeated",
}

func (p *process) transmit(request *call, what fate) {
	if p.isCutOff() {
		what = fateRequestLost
	}
	p.log(p.name, func() string { return request.name() + fateNames[what] })
	p.counts.requests++
	if what != fateNormal {
		p.counts.faults++
	}
	if what == fateRequestLost {
		p.failConnection(request)
		return
	}
	p.simulation.after(p.networkDelay(), func() { p.arrive(request, what) })
}

// arrive executes the request at the API server.
func (p *process) arrive(request *call, what fate) {
	if request.restores != p.server.restores { // the API servers were stopped for the restore
		p.failConnection(request)
		return
	}
	request.date = p.simulation.clock()
	p.executing = request
	defer func() { p.executing = nil }()
	var err error
	switch what {
	case fateRefused:
		err = errTooBusy
	case fateFailed:
		err = errInternal
	case fateExecutedTwice:
		_ = request.execute() // its response is lost
		err = request.execute()
	default:
		err = request.execute()
	}
	switch {
	case what == fateResponseLost, p.isCutOff():
		p.failConnection(request)
		return
	case what == fateFailedLate && err == nil:
		err = errTimedOut
	}
	delay := p.networkDelay()
	p.after(delay, func() { p.respond(request, err) })
	if deadline, ok := request.deadline(p.simulation); ok && p.now+delay > deadline {
		p.timeOut(request, deadline)
	}
}

// deadline returns when the code that sent the request gives up, or false.
func (c *call) deadline(s *simulation) (time.Duration, bool) {
	deadline, ok := c.ctx.Deadline()
	return deadline.Sub(s.began), ok
}

// failConnection ends a request without a response: at once, because the connection breaks, or at its deadline.
func (p *process) failConnection(request *call) {
	deadline, ok := request.deadline(p.simulation)
	if ok && p.chance(50) {
		p.timeOut(request, deadline)
		return
	}
	p.after(p.networkDelay(), func() { p.respond(request, errConnection) })
}

func (p *process) timeOut(request *call, deadline time.Duration) {
	p.at(deadline+time.Millisecond, func() { p.respond(request, context.DeadlineExceeded) })
}

// respond lets the task continue with the result of its request.
func (p *process) respond(request *call, err error) {
	if request.complete || request.task.over {
		return
	}
	request.complete = true
	if request.ctx.Err() != nil && p.chance(50) {
		err = request.ctx.Err()
	}
	request.err = err
	if err != nil {
		delete(p.expectedEvents, request.task)
		p.log(p.name, func() string { return "gets the error: " + err.Error() })
	}
	request.task.continueRunning()
}

var errConnection = fmt.Errorf("the connection to the API server broke: %w", io.ErrUnexpectedEOF)

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process starts programs that run beside this one, knows when they are ready, and leaves none behind: not when they are
// stopped, not when starting them is interrupted, and, on Linux, not when this program is killed.
package process

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	readyTimeout = time.Minute
	readyPoll    = 50 * time.Millisecond
	stopTimeout  = 20 * time.Second
	tailLines    = 15
)

// Command says what to run.
type Command struct {
	// Name is what messages call the process; empty is the base name of Path.
	Name string
	// Path of the program.
	Path string
	// Args of the program, without its name.
	Args []string
	// Env is added to this program's environment, as "NAME=value".
	Env []string
	// Log is the file that gets what the process prints. It is started afresh.
	Log string
	// Ready returns nil once the process does its work; it is asked until then. Nil means ready at once.
	Ready func(ctx context.Context) error
	// ReadyTimeout bounds how long that may take; 0 is a minute.
	ReadyTimeout time.Duration
	// Attributes are what the system is to do for the process beyond what this package has it do; nil is nothing.
	Attributes *syscall.SysProcAttr
}

func (c *Command) name() string {
	if c.Name != "" {
		return c.Name
	}
	return filepath.Base(c.Path)
}

// Process is a program that was started.
type Process struct {
	command Command
	cmd     *exec.Cmd
	ended   chan struct{}
	result  error // how it ended; to be read after ended is closed
}

// Start starts a program and returns when it is ready. On any error, cancellation of ctx included, nothing is left running. What ctx
// does later does not touch the process.
func Start(ctx context.Context, command Command) (*Process, error) {
	p, err := launch(ctx, command)
	if err != nil {
		return nil, err
	}
	if err := p.waitReady(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Run runs a command to its end. Ctrl-C in a terminal does not reach it: the command's own context ends it.
func Run(command *exec.Cmd) error {
	if err := start(command); err != nil {
		return err
	}
	return command.Wait()
}

func launch(ctx context.Context, command Command) (*Process, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	log, err := os.OpenFile(command.Log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot log what %s prints: %w", command.name(), err)
	}
	defer func() { _ = log.Close() }() // the process has its own

	cmd := exec.Command(command.Path, command.Args...)
	cmd.Env = append(os.Environ(), command.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = command.Attributes
	if err := start(cmd); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", command.name(), err)
	}
	p := &Process{command: command, cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.result = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Main runs the command line of a program that starts others: until one of [EndingSignals], after which the program says that it was
// interrupted, whatever error that led to.
func Main(command func(ctx context.Context, args []string) error) {
	ctx, _ := signal.NotifyContext(context.Background(), EndingSignals()...)
	switch err := command(ctx, os.Args[1:]); {
	case err == nil:
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// EndingSignals are those that end a program in a terminal or a pipe: each is to end what the program has started, too.
func EndingSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // by nohup
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// HTTPReady is a Command.Ready that asks a URL until it answers 200.
func HTTPReady(url string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s", url, response.Status)
		}
		return nil
	}
}

func (p *Process) waitReady(ctx context.Context) error {
	if p.command.Ready == nil {
		return nil
	}
	timeout := cmp.Or(p.command.ReadyTimeout, readyTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errNotReady)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		notReady := p.command.Ready(ctx)
		if notReady == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready: %w", p.Name(), p.Err())
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errNotReady) {
				return cause
			}
			return fmt.Errorf("%s was not ready after %s: %w\n%s", p.Name(), timeout, notReady, p.logTail())
		}
	}
}

var errNotReady = errors.New("not ready in time")

// Name is what messages call the process.
func (p *Process) Name() string { return p.command.name() }

// PID is the id of the process, and of the process group that it leads.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is the file that gets what the process prints.
func (p *Process) Log() string { return p.command.Log }

// Ended is closed when the process has ended, by itself or not.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// WaitAny returns nil when ctx is done, and an error when one of these processes ends by itself before.
func WaitAny(ctx context.Context, processes ...*Process) error {
	ended := make(chan *Process)
	for _, p := range processes {
		go func() {
			select {
			case <-p.Ended():
				select {
				case ended <- p:
				case <-ctx.Done():
				}
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-ctx.Done():
		return nil
	case p := <-ended:
		return fmt.Errorf("%s ended by itself: %w", p.Name(), p.Err())
	}
}

// Err waits for the end of the process and says how it ended, with the last lines of its log.
func (p *Process) Err() error {
	<-p.ended
	how := "exit status 0"
	if p.result != nil {
		how = p.result.Error()
	}
	return fmt.Errorf("%s\n%s", how, p.logTail())
}

// Stop asks the process to end, and kills it when it has not ended after 20 seconds, which is an error. It returns once the process has
// ended; of a process that ended before, it says nothing.
func (p *Process) Stop() error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		p.Kill()
		return fmt.Errorf("%s was killed: it had not ended %s after it was asked to\n%s", p.Name(), stopTimeout, p.logTail())
	}
}

// Kill ends the process at once, and returns when it has ended.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.ended
}

// Signal sends a signal to the process and its children, if it has not ended.
func (p *Process) Signal(signal syscall.Signal) {
	select {
	case <-p.ended: // its id may be somebody else's by now
	default:
		_ = syscall.Kill(-p.PID(), signal) // fails only when it has just ended
	}
}

func (p *Process) logTail() string {
	content, err := os.ReadFile(p.command.Log)
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v", err)
	}
	lines := strings.Split(string(bytes.TrimSpace(content)), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	return fmt.Sprintf("the last lines of %s:\n  %s", p.command.Log, strings.Join(lines, "\n  "))
}

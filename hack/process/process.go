// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process starts programs as child processes and waits until they are ready. It leaves no child running: after a stop, after an
// interrupted start, and, on Linux, after this program was killed.
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

// Command is a program to start.
type Command struct {
	// Name is the name of the process in messages. It defaults to the base name of Path.
	Name string
	// Path is the path of the program.
	Path string
	// Args are the arguments, without the name of the program.
	Args []string
	// Env is added to the environment of this program, as "NAME=value".
	Env []string
	// Log is the file of the output, which Start truncates.
	Log string
	// Ready returns nil once the process is ready. Start polls it. If it is nil, the process is ready at once.
	Ready func(ctx context.Context) error
	// ReadyTimeout is the timeout of Ready. It defaults to a minute.
	ReadyTimeout time.Duration
	// Attributes are further attributes of the process. They may be nil.
	Attributes *syscall.SysProcAttr
}

func (c *Command) name() string {
	if c.Name != "" {
		return c.Name
	}
	return filepath.Base(c.Path)
}

// Process is a started program.
type Process struct {
	command Command
	cmd     *exec.Cmd
	ended   chan struct{}
	result  error // of cmd.Wait; valid after ended is closed
}

// Start starts a program and returns when it is ready. On any error, cancellation of ctx included, no process is left running. A later
// cancellation of ctx does not stop the process.
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

// Output runs a command to its end and returns its standard output and error. An error includes them. Ctrl-C in a terminal does not reach
// the command; only ctx, which must be the context of the command, stops it.
func Output(ctx context.Context, command *exec.Cmd) (string, error) {
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	err := start(command)
	if err == nil {
		err = command.Wait()
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil:
		line := append([]string{filepath.Base(command.Path)}, command.Args[1:]...)
		err = fmt.Errorf("%s: %w\n%s", strings.Join(line, " "), err, &output)
	}
	return output.String(), err
}

func launch(ctx context.Context, command Command) (*Process, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	log, err := os.OpenFile(command.Log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", command.name(), err)
	}
	defer func() { _ = log.Close() }() // the process has a copy

	cmd := exec.Command(command.Path, command.Args...)
	cmd.Env = append(os.Environ(), command.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = command.Attributes
	if err := start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.name(), err)
	}
	p := &Process{command: command, cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.result = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Main runs the command line of a program that starts others. One of [TerminationSignals] cancels ctx; the program then prints
// "interrupted" instead of the error of the command.
func Main(command func(ctx context.Context, args []string) error) {
	ctx, _ := signal.NotifyContext(context.Background(), TerminationSignals()...)
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

// TerminationSignals returns the signals that end a program in a terminal or a pipe.
func TerminationSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// HTTPReady returns a Command.Ready that waits for the status 200 of a URL.
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
			return fmt.Errorf("%s returned %s", url, response.Status)
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

// Name returns the name of the process in messages.
func (p *Process) Name() string { return p.command.name() }

// PID returns the ID of the process, and of the process group that it leads.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the file of the output.
func (p *Process) Log() string { return p.command.Log }

// Ended returns a channel that is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// WaitAny waits until ctx is done. It returns an error if one of the processes ends before.
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
		return fmt.Errorf("%s ended unexpectedly: %w", p.Name(), p.Err())
	}
}

// Err waits for the end of the process and returns its exit status with the last lines of its log.
func (p *Process) Err() error {
	<-p.ended
	status := "exit status 0"
	if p.result != nil {
		status = p.result.Error()
	}
	return fmt.Errorf("%s\n%s", status, p.logTail())
}

// Stop terminates the process and waits for its end. If it takes more than 20 seconds, Stop kills the process and returns an error.
func (p *Process) Stop() error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		p.Kill()
		return fmt.Errorf("%s was killed, because it did not end within %s after SIGTERM\n%s", p.Name(), stopTimeout, p.logTail())
	}
}

// Kill kills the process and waits for its end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.ended
}

// Signal sends a signal to the process and its children, unless it has ended.
func (p *Process) Signal(signal syscall.Signal) {
	select {
	case <-p.ended: // another process may have its ID now
	default:
		_ = syscall.Kill(-p.PID(), signal) // fails if the process has just ended
	}
}

func (p *Process) logTail() string {
	content, err := os.ReadFile(p.command.Log)
	if err != nil {
		return fmt.Sprintf("cannot read its log: %v", err)
	}
	lines := strings.Split(string(bytes.TrimSpace(content)), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	return fmt.Sprintf("the last lines of %s:\n  %s", p.command.Log, strings.Join(lines, "\n  "))
}

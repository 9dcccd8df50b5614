// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/hack/process"
)

// script returns a command that runs a shell script, and is ready once the script has created the file $READY.
func script(t *testing.T, source string) process.Command {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	return process.Command{
		Path: "/bin/sh",
		Args: []string{"-c", source},
		Env:  []string{"READY=" + ready},
		Log:  filepath.Join(t.TempDir(), "script.log"),
		Ready: func(context.Context) error {
			_, err := os.Stat(ready)
			return err
		},
	}
}

func TestStart_ReturnsWhenReadyAndStopWhenEnded(t *testing.T) {
	g := NewWithT(t)
	p, err := process.Start(t.Context(), script(t, `trap 'echo terminated; exit 0' TERM; : >"$READY"; while :; do sleep 0.1; done`))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(syscall.Kill(p.PID(), 0)).To(Succeed())

	g.Expect(p.Stop()).To(Succeed())
	g.Expect(p.Ended()).To(BeClosed())
	g.Expect(syscall.Kill(p.PID(), 0)).To(MatchError(syscall.ESRCH))
	g.Expect(p.Err()).To(MatchError(And(ContainSubstring("exit status 0"), ContainSubstring("terminated"))))
	g.Expect(p.Stop()).To(Succeed(), "after the end of the process")
}

func TestStop_TerminatesChildren(t *testing.T) {
	g := NewWithT(t)
	command := script(t, `trap wait TERM; sh -c 'trap "echo child terminated; exit" TERM; : >"$READY"; while :; do sleep 0.1; done' & wait`)
	p, err := process.Start(t.Context(), command)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(p.Stop()).To(Succeed())
	g.Expect(os.ReadFile(command.Log)).To(ContainSubstring("child terminated"))
}

func TestStart_ReturnsWhyAProcessEndedBeforeItWasReady(t *testing.T) {
	g := NewWithT(t)
	command := script(t, `for i in $(seq 100); do echo line $i; done; exit 3`)
	_, err := process.Start(t.Context(), command)
	g.Expect(err).To(MatchError(And(
		HavePrefix("sh ended before it was ready: exit status 3\nthe last lines of "+command.Log+":\n  line 86\n"),
		HaveSuffix("  line 100"))))
}

func TestStart_InterruptedLeavesNoProcess(t *testing.T) {
	g := NewWithT(t)
	ctx, interrupt := context.WithCancel(t.Context())
	command := script(t, `echo $$; exec sleep 1000`)
	var pid int
	command.Ready = func(context.Context) error {
		if log, _ := os.ReadFile(command.Log); len(log) > 0 {
			pid, _ = strconv.Atoi(strings.TrimSpace(string(log)))
			interrupt()
		}
		return errors.New("never")
	}
	_, err := process.Start(ctx, command)
	g.Expect(err).To(MatchError(context.Canceled))
	g.Expect(pid).To(BeNumerically(">", 1))
	g.Expect(syscall.Kill(pid, 0)).To(MatchError(syscall.ESRCH))
}

func TestStart_FailsAfterTheReadyTimeout(t *testing.T) {
	g := NewWithT(t)
	command := script(t, `echo starting; exec sleep 1000`)
	command.Name, command.ReadyTimeout = "the sleeper", time.Second
	_, err := process.Start(t.Context(), command)
	g.Expect(err).To(MatchError(And(
		HavePrefix("the sleeper was not ready after 1s: "),
		HaveSuffix("the last lines of "+command.Log+":\n  starting"))))
}

func TestWaitAny_ReturnsWhichProcessEnded(t *testing.T) {
	g := NewWithT(t)
	var processes []*process.Process
	for name, source := range map[string]string{"steady": `: >"$READY"; exec sleep 1000`, "hasty": `: >"$READY"; exit 4`} {
		command := script(t, source)
		command.Name, command.Ready = name, nil
		p, err := process.Start(t.Context(), command)
		g.Expect(err).NotTo(HaveOccurred())
		defer p.Kill()
		processes = append(processes, p)
	}
	g.Expect(process.WaitAny(t.Context(), processes...)).To(MatchError(HavePrefix("hasty ended unexpectedly: exit status 4\n")))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(process.WaitAny(ctx)).To(Succeed())
}

func TestStart_ReturnsWhyAProgramCannotBeStarted(t *testing.T) {
	g := NewWithT(t)
	_, err := process.Start(t.Context(), process.Command{Path: "/nowhere/etcd", Log: filepath.Join(t.TempDir(), "log")})
	g.Expect(err).To(MatchError(HavePrefix("start etcd: ")))
	g.Expect(err).To(MatchError(os.ErrNotExist))
}

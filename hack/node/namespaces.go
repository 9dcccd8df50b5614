// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"squirrel.dev/apikey-operator/hack/process"
)

const (
	firstProcessCommand = "first-process"
	hostName            = "node"

	newNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
)

// namespaces are where the node lives. They end with their first process, and so does all that runs in them.
type namespaces struct{ pid int }

func (n namespaces) String() string { return strconv.Itoa(n.pid) }

// startFirstProcess starts the first process of new namespaces, and returns once it has prepared them.
func startFirstProcess(ctx context.Context, place place) (*process.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return process.Start(ctx, process.Command{
		Name:       firstProcessCommand,
		Path:       self,
		Args:       []string{firstProcessCommand, place.debian, place.state, place.logs},
		Attributes: &syscall.SysProcAttr{Cloneflags: newNamespaces},
		Log:        place.logFile(firstProcessCommand),
		Ready: func(context.Context) error {
			_, err := os.Stat(preparedFile(place.state))
			return err
		},
	})
}

// preparedFile is what the first process makes when it has prepared its namespaces.
func preparedFile(state string) string { return filepath.Join(state, "prepared") }

// runFirstProcess is the first process of the namespaces. It puts Debian packages where they belong, gives the node a /proc, a /run, a
// /var/lib and a /var/log of its own, keeps it from changing settings of the whole machine, and then takes in the processes that others
// leave. It does not return but with an error.
func runFirstProcess(debian, state, logs string) error {
	steps := []func() error{
		hideMounts,
		func() error { return addFiles(filepath.Join(debian, "usr"), "/usr") },
		func() error { return addFiles(filepath.Join(debian, "lib"), "/usr/lib") },
		func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		func() error { return unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755") },
		func() error { return divertChanges("/var/lib", filepath.Join(state, "var-lib")) },
		func() error { return unix.Mount(logs, "/var/log", "", unix.MS_BIND, "") },
		func() error { return shieldSettings(filepath.Join(state, "settings")) },
		func() error { return unix.Sethostname([]byte(hostName)) },
		func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }, // of this network namespace
		func() error { return os.WriteFile(preparedFile(state), nil, 0o644) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d of preparing the namespaces: %w", i+1, err)
		}
	}
	reap()
	return nil
}

// hideMounts keeps what is mounted in here from showing outside, and lets it show in containers.
func hideMounts() error {
	return errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
}

// addFiles has the files under one directory appear under another one, too.
func addFiles(from, target string) error {
	return unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+from+":"+target)
}

// divertChanges has what is written under a directory go to another one.
func divertChanges(target, changes string) error {
	upper, work := filepath.Join(changes, "upper"), filepath.Join(changes, "work")
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	return unix.Mount("overlay", target, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", target, upper, work))
}

// shieldSettings puts files over the kernel's settings that a kubelet changes, with the values that it wants.
func shieldSettings(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for setting, value := range map[string]string{
		"vm/overcommit_memory": "1",
		"kernel/panic":         "10",
		"kernel/panic_on_oops": "1",
	} {
		file := filepath.Join(dir, filepath.Base(setting))
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, filepath.Join("/proc/sys", setting), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// reap waits for ever, and for every process that has lost its parent.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for range children {
		for pid := 1; pid > 0; {
			pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		}
	}
}

// record has findNamespaces find these.
func (n namespaces) record(place place) error {
	return os.WriteFile(pidFile(place), []byte(n.String()), 0o644)
}

// findNamespaces returns those of the node that is running.
func findNamespaces(place place) (namespaces, error) {
	if _, err := lockHolder(); err != nil {
		return namespaces{}, err
	}
	content, err := os.ReadFile(pidFile(place))
	if err != nil {
		return namespaces{}, fmt.Errorf("the node that is running is not one of this directory: %w", err)
	}
	pid, err := strconv.Atoi(string(content))
	return namespaces{pid: pid}, err
}

func pidFile(place place) string { return filepath.Join(place.state, firstProcessCommand+".pid") }

// enter is the command line that runs another one in the namespaces, at the root of the file system.
func (n namespaces) enter(command ...string) []string {
	return append([]string{"nsenter", "--target", n.String(), "--net", "--mount", "--pid", "--ipc", "--uts", "--"}, command...)
}

// run runs a command in the namespaces to its end.
func (n namespaces) run(ctx context.Context, input io.Reader, command ...string) error {
	return run(ctx, input, n.enter(command...)...)
}

// run runs a command to its end; an error has what it printed.
func run(ctx context.Context, input io.Reader, command ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &output, &output
	err := process.Run(cmd)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, &output)
	}
	return nil
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"squirrel.dev/apikey-operator/hack/process"
)

const (
	firstProcessCommand = "first-process"
	hostName            = "node"

	newNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
)

// namespaces are the namespaces of the node, by their first process. All processes in them end with the first one.
type namespaces struct{ pid int }

func (n namespaces) String() string { return strconv.Itoa(n.pid) }

// startFirstProcess starts the first process of new namespaces, and returns when it has prepared them.
func startFirstProcess(ctx context.Context, paths paths) (*process.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return process.Start(ctx, process.Command{
		Name:       firstProcessCommand,
		Path:       self,
		Args:       []string{firstProcessCommand, paths.debian, paths.state, paths.logs},
		Attributes: &syscall.SysProcAttr{Cloneflags: newNamespaces},
		Log:        paths.logFile(firstProcessCommand),
		Ready: func(context.Context) error {
			_, err := os.Stat(preparedFile(paths.state))
			return err
		},
	})
}

// preparedFile returns the file that the first process creates when it has prepared its namespaces.
func preparedFile(state string) string { return filepath.Join(state, "prepared") }

// runFirstProcess is the first process of the namespaces. It adds the files of the Debian packages, mounts a separate /proc, /run, /var/lib
// and /var/log, protects the settings of the machine, and then reaps orphaned processes. It returns only on an error.
func runFirstProcess(debian, state, logs string) error {
	steps := []func() error{
		isolateMounts,
		func() error { return overlayFiles(filepath.Join(debian, "usr"), "/usr") },
		func() error { return overlayFiles(filepath.Join(debian, "lib"), "/usr/lib") },
		func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		func() error { return unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755") },
		func() error { return redirectWrites("/var/lib", filepath.Join(state, "var-lib")) },
		func() error { return unix.Mount(logs, "/var/log", "", unix.MS_BIND, "") },
		func() error { return protectSettings(filepath.Join(state, "settings")) },
		func() error { return unix.Sethostname([]byte(hostName)) },
		func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }, // of this network namespace
		func() error { return os.WriteFile(preparedFile(state), nil, 0o644) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("prepare the namespaces, step %d: %w", i+1, err)
		}
	}
	reap()
	return nil
}

// isolateMounts hides further mounts from this machine, and propagates them to containers.
func isolateMounts() error {
	return errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
}

// overlayFiles adds the files of a directory to another one.
func overlayFiles(from, target string) error {
	return unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+from+":"+target)
}

// redirectWrites redirects writes to a directory into another one.
func redirectWrites(target, changes string) error {
	upper, work := filepath.Join(changes, "upper"), filepath.Join(changes, "work")
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	return unix.Mount("overlay", target, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", target, upper, work))
}

// protectSettings mounts files over the kernel settings that kubelet writes, with the values that it requires.
func protectSettings(dir string) error {
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

// reap reaps orphaned processes, and never returns.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for range children {
		for pid := 1; pid > 0; {
			pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		}
	}
}

// record writes the file that findNamespaces reads.
func (n namespaces) record(paths paths) error {
	return os.WriteFile(pidFile(paths), []byte(n.String()), 0o644)
}

// findNamespaces returns the namespaces of the running node.
func findNamespaces(paths paths) (namespaces, error) {
	if _, err := lockHolder(); err != nil {
		return namespaces{}, err
	}
	content, err := os.ReadFile(pidFile(paths))
	if err != nil {
		return namespaces{}, fmt.Errorf("the running node belongs to another directory: %w", err)
	}
	pid, err := strconv.Atoi(string(content))
	return namespaces{pid: pid}, err
}

func pidFile(paths paths) string { return filepath.Join(paths.state, firstProcessCommand+".pid") }

// enter returns the command line that runs a command in the namespaces, in the root directory.
func (n namespaces) enter(command ...string) []string {
	return append([]string{"nsenter", "--target", n.String(), "--net", "--mount", "--pid", "--ipc", "--uts", "--"}, command...)
}

// run runs a command in the namespaces.
func (n namespaces) run(ctx context.Context, input io.Reader, command ...string) error {
	_, err := n.output(ctx, input, command...)
	return err
}

// output runs a command in the namespaces, and returns its output.
func (n namespaces) output(ctx context.Context, input io.Reader, command ...string) (string, error) {
	return output(ctx, input, n.enter(command...)...)
}

// run runs a command. An error includes its output.
func run(ctx context.Context, input io.Reader, command ...string) error {
	_, err := output(ctx, input, command...)
	return err
}

func output(ctx context.Context, input io.Reader, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = input
	return process.Output(ctx, cmd)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

const elsewhere = "Give the tests another cluster instead: make e2e KUBECONFIG=FILE IMAGE=NAME"

// checkMachine says what is missing on this machine for a node.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("a node makes namespaces, control groups and network links, which only root may. " + elsewhere)
	}
	var system unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &system); err != nil {
		return fmt.Errorf("a node needs control groups in %s: %w. %s", cgroupRoot, err, elsewhere)
	}
	if system.Type == unix.CGROUP2_SUPER_MAGIC {
		return errors.New("this machine has control groups of version 2 alone, and a node needs those of version 1. " + elsewhere)
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: newNamespaces}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("this machine lets not even root make namespaces (%w). %s", err, elsewhere)
	}
	return nil
}

// lockName is a socket outside the file system: it is there exactly as long as the process that listens to it.
const lockName = "@apikey-operator-node"

// lock makes sure that only one node runs on this machine: two would have the same addresses.
func lock() (unlock func(), err error) {
	listener, err := net.Listen("unix", lockName)
	if errors.Is(err, syscall.EADDRINUSE) {
		pid, err := lockHolder()
		return nil, errors.Join(fmt.Errorf("a node is running already, as process %d: end that one first", pid), err)
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = listener.Close() }, nil
}

// lockHolder returns the process of the node that is running.
func lockHolder() (pid int, err error) {
	connection, err := net.Dial("unix", lockName)
	if err != nil {
		return 0, fmt.Errorf("no node is running, `make node` runs one: %w", err)
	}
	defer connection.Close()
	raw, err := connection.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, peerErr); err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// removeRemains removes what a node leaves behind when it is killed.
func removeRemains(ctx context.Context) error {
	return errors.Join(disconnect(ctx), removeCgroups(ctx))
}

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

const useAnotherCluster = "run the tests on another cluster with make e2e KUBECONFIG=FILE IMAGE=NAME"

// checkMachine returns an error if this machine cannot run a node.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("a node requires root, to create namespaces, control groups and network links: become root, or " + useAnotherCluster)
	}
	var system unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &system); err != nil {
		return fmt.Errorf("a node requires control groups in %s: %w: %s", cgroupRoot, err, useAnotherCluster)
	}
	if system.Type == unix.CGROUP2_SUPER_MAGIC {
		return errors.New("a node requires control groups of version 1, and this machine has version 2: " + useAnotherCluster)
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: newNamespaces}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("a node requires namespaces, which root cannot create on this machine: %w: %s", err, useAnotherCluster)
	}
	return nil
}

// minFreeSpace is what the images, the logs and etcd take, in bytes. A node with less than 100 MiB evicts its pods.
const minFreeSpace = 1 << 30

// checkFreeSpace returns an error if the file system of a directory has less than required bytes for its user.
func checkFreeSpace(dir string, required uint64) error {
	var system unix.Statfs_t
	if err := unix.Statfs(dir, &system); err != nil {
		return fmt.Errorf("read the free space of %s: %w", dir, err)
	}
	if free := system.Bavail * uint64(system.Bsize); free < required {
		return fmt.Errorf("a node requires %d MiB of free space in %s, which has %d MiB: free some, for example with `go clean -cache`, or %s",
			required>>20, dir, free>>20, useAnotherCluster)
	}
	return nil
}

// lockName is an abstract socket, which exists as long as the process that listens on it.
const lockName = "@apikey-operator-node"

// lock prevents a second node on this machine, which would have the same addresses.
func lock() (unlock func(), err error) {
	listener, err := net.Listen("unix", lockName)
	if errors.Is(err, syscall.EADDRINUSE) {
		pid, err := lockHolder()
		return nil, errors.Join(fmt.Errorf("a node is running already, as process %d: stop it first", pid), err)
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = listener.Close() }, nil
}

// lockHolder returns the process ID of the running node.
func lockHolder() (pid int, err error) {
	connection, err := net.Dial("unix", lockName)
	if err != nil {
		return 0, fmt.Errorf("no node is running: start one with `make node`: %w", err)
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

// cleanUp removes the network link and the control groups, which a killed node leaves behind.
func cleanUp(ctx context.Context) error {
	return errors.Join(disconnect(ctx), removeCgroups(ctx))
}

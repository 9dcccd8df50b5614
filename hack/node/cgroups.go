// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	cgroupName = "apikey-node" // the group of the node in each hierarchy, and the parent of those of pods

	cgroupTimeout = 20 * time.Second
	cgroupPoll    = 20 * time.Millisecond
)

// createCgroups creates the control group of the node in each hierarchy of this machine.
func createCgroups() error {
	hierarchies, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if err != nil {
		return err
	}
	if len(hierarchies) == 0 {
		return fmt.Errorf("this machine has no control groups in %s: %s", cgroupRoot, useAnotherCluster)
	}
	for _, procs := range hierarchies {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(procs), cgroupName), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(inheritCpuset("cpuset.cpus"), inheritCpuset("cpuset.mems"), setShares())
}

// setShares gives all pods together the CPU shares of 32 programs. By default, a group has those of one, 1024, and its pods would starve on
// a busy machine.
func setShares() error {
	const shares = 32 * 1024
	return os.WriteFile(filepath.Join(cgroupRoot, "cpu", cgroupName, "cpu.shares"), []byte(strconv.Itoa(shares)), 0)
}

// inheritCpuset copies the processors or memory nodes of the parent to the group of the node, because a new group has none.
func inheritCpuset(file string) error {
	parent := filepath.Join(cgroupRoot, "cpuset")
	all, err := os.ReadFile(filepath.Join(parent, file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(parent, cgroupName, file), all, 0)
}

// removeCgroups removes the control groups of the node. Their processes were killed, but some may not have ended yet.
func removeCgroups(ctx context.Context) error {
	var busy error
	err := wait.PollUntilContextTimeout(ctx, cgroupPoll, cgroupTimeout, true, func(context.Context) (bool, error) {
		groups, err := nodeCgroups()
		if err != nil {
			return false, err
		}
		slices.Reverse(groups) // children first
		for _, group := range groups {
			err := os.Remove(group)
			switch {
			case errors.Is(err, syscall.EBUSY):
				busy = err
				return false, nil
			case ignoreNotExist(err) != nil:
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("remove the control groups of the node: %w", errors.Join(err, busy))
	}
	return nil
}

// nodeCgroups returns the directories of the control groups of the node, each before its children.
func nodeCgroups() ([]string, error) {
	roots, err := filepath.Glob(filepath.Join(cgroupRoot, "*", cgroupName))
	if err != nil {
		return nil, err
	}
	var groups []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return ignoreNotExist(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return groups, nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testnode starts a Kubernetes cluster of one real node, by running the compiled command hack/node.
package testnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

const readyTimeout = 3 * time.Minute

// Node is a running cluster of one node. Stopping the process stops the cluster.
type Node struct {
	*process.Process
	root string // of the repository
}

// Start starts a node and returns when it is ready. The variables env, as "NAME=value", are added to its environment.
func Start(ctx context.Context, env ...string) (*Node, error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return nil, err
	}
	n := &Node{root: root}
	log := filepath.Join(filepath.Dir(n.Program()), "up.log")
	n.Process, err = process.Start(ctx, process.Command{
		Name: "node up",
		Path: n.Program(),
		Args: []string{"up"},
		Env:  env,
		Log:  log,
		Ready: func(context.Context) error {
			output, err := os.ReadFile(log)
			if err == nil && !strings.HasSuffix(string(output), "\nready\n") {
				err = errors.New("the node has not logged that it is ready")
			}
			return err
		},
		ReadyTimeout: readyTimeout,
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Program returns the path of the command.
func (n *Node) Program() string { return filepath.Join(n.root, "bin", "node", "node") }

// Kubeconfig returns the path of a kubeconfig file with full access.
func (n *Node) Kubeconfig() string { return filepath.Join(n.root, "bin", "node", "kubeconfig") }

// Load loads an image from bin/images into the node.
func (n *Node) Load(ctx context.Context, name string) error {
	load := exec.CommandContext(ctx, n.Program(), "load", filepath.Join(n.root, "bin", "images", name+".tar"))
	if output, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("node load: %w\n%s", err, output)
	}
	return nil
}

// KillPod kills the processes of a pod that run this program of the image, by SIGKILL. It fails if none does.
func (n *Node) KillPod(podUID, program string) error {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup") // the processes of the node are visible on this machine
	if err != nil {
		return err
	}
	killed := 0
	for _, file := range groups {
		dir := filepath.Dir(file)
		content, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(content), "/pod"+podUID+"/") {
			continue // the process has ended, or belongs to another pod
		}
		if path, err := os.Readlink(filepath.Join(dir, "exe")); err != nil || path != program {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		killed++
	}
	if killed == 0 {
		return fmt.Errorf("no process of the pod %s runs %s", podUID, program)
	}
	return nil
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testnode gives tests a Kubernetes cluster of one real node: it runs the built command hack/node.
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

// Node is a running cluster of one node. Stopping its process ends the cluster.
type Node struct {
	*process.Process
	root string // of the repository
}

// Start starts a node and returns when it is ready. Env is added to its environment, as "NAME=value".
func Start(ctx context.Context, env ...string) (*Node, error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return nil, err
	}
	n := &Node{root: root}
	printed := filepath.Join(filepath.Dir(n.Program()), "up.log")
	n.Process, err = process.Start(ctx, process.Command{
		Name: "node up",
		Path: n.Program(),
		Args: []string{"up"},
		Env:  env,
		Log:  printed,
		Ready: func(context.Context) error {
			output, err := os.ReadFile(printed)
			if err == nil && !strings.HasSuffix(string(output), "\nready\n") {
				err = errors.New("it does not say that it is ready")
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

// Program is the path of the command.
func (n *Node) Program() string { return filepath.Join(n.root, "bin", "node", "node") }

// Kubeconfig is the path of a kubeconfig file that gives access to everything.
func (n *Node) Kubeconfig() string { return filepath.Join(n.root, "bin", "node", "kubeconfig") }

// Load gives the node an image: one of those that `make` puts in bin/images.
func (n *Node) Load(ctx context.Context, name string) error {
	load := exec.CommandContext(ctx, n.Program(), "load", filepath.Join(n.root, "bin", "images", name+".tar"))
	if output, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("node load: %w\n%s", err, output)
	}
	return nil
}

// KillPod ends the processes of a pod that run this program of their image, by SIGKILL. One at least has to be there.
func (n *Node) KillPod(podUID, program string) error {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup") // those of the node are among this machine's processes
	if err != nil {
		return err
	}
	killed := 0
	for _, file := range groups {
		dir := filepath.Dir(file)
		content, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(content), "/pod"+podUID+"/") {
			continue // it has ended, or is another one's
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

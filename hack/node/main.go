// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"path/filepath"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

const usage = `usage: node check            check whether this machine can run a node
       node up               run a cluster of one node until Ctrl-C
       node load FILE.tar... load images into the running node, from archives of "docker save" or OCI layouts`

func main() { process.Main(command) }

func command(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "check":
		return checkMachine()
	case len(args) == 4 && args[0] == firstProcessCommand:
		return runFirstProcess(args[1], args[2], args[3])
	}
	paths, err := findPaths()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "up":
		return up(ctx, paths)
	case len(args) > 1 && args[0] == "load":
		return load(ctx, paths, args[1:])
	default:
		return errors.New(usage)
	}
}

// paths are the files and directories of this program.
type paths struct {
	assets     string // the directory of the control plane's binaries
	programs   string // the directory of the node's binaries
	debian     string // the directory of the extracted Debian packages
	images     string // the directory of the images of the system pods
	state      string // the directory of the node's data, which exists while the node runs
	kubeconfig string // a file that exists while the node is ready
	logs       string // the directory of the logs of the last node
}

func findPaths() (paths, error) {
	root, err := controlplane.FindRepository()
	if err != nil {
		return paths{}, err
	}
	assets, err := controlplane.FindAssets()
	bin := filepath.Join(root, "bin")
	return paths{
		assets:     assets,
		programs:   filepath.Join(bin, "node"),
		debian:     filepath.Join(bin, "debian"),
		images:     filepath.Join(bin, "images"),
		state:      filepath.Join(bin, "node", "state"),
		kubeconfig: filepath.Join(bin, "node", "kubeconfig"),
		logs:       filepath.Join(bin, "node", "log"),
	}, err
}

func (p paths) logFile(process string) string { return filepath.Join(p.logs, process+".log") }

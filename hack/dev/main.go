// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command dev shows apikey-operator at work on a Kubernetes control plane of its own: `make run` and `make demo`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

const usage = `usage: dev run [--reset]   run until Ctrl-C; --reset forgets the data of the last run
       dev demo            tour, and exit`

func main() { process.Main(command) }

func command(ctx context.Context, args []string) error {
	root, err := controlplane.FindRepository()
	if err != nil {
		return err
	}
	place := place{root: root, home: filepath.Join(root, "bin", "dev"), out: os.Stdout}
	switch {
	case len(args) == 1 && args[0] == "run":
		return run(ctx, place, false)
	case len(args) == 2 && args[0] == "run" && args[1] == "--reset":
		return run(ctx, place, true)
	case len(args) == 1 && args[0] == "demo":
		return demo(ctx, place)
	default:
		return errors.New(usage)
	}
}

// place is where this program works.
type place struct {
	root string    // of the repository
	home string    // the directory of what it writes
	out  io.Writer // what people read
}

func (p place) say(format string, args ...any) { _, _ = fmt.Fprintf(p.out, format+"\n", args...) }

// config is the path of something in the repository's directory config.
func (p place) config(elements ...string) string {
	return filepath.Join(append([]string{p.root, "config"}, elements...)...)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
)

const usage = `usage: dev run [--reset]   run apikey-operator until Ctrl-C; --reset deletes the data of the last run
       dev demo            run the demo`

func main() {
	log.SetLogger(logr.Discard()) // client-go and envtest log through it
	process.Main(command)
}

func command(ctx context.Context, args []string) error {
	root, err := controlplane.FindRepository()
	if err != nil {
		return err
	}
	w := workspace{root: root, home: filepath.Join(root, "bin", "dev"), out: os.Stdout}
	switch {
	case len(args) == 1 && args[0] == "run":
		return run(ctx, w, false)
	case len(args) == 2 && args[0] == "run" && args[1] == "--reset":
		return run(ctx, w, true)
	case len(args) == 1 && args[0] == "demo":
		return demo(ctx, w)
	default:
		return errors.New(usage)
	}
}

// workspace is the directories and the output of this program.
type workspace struct {
	root string // the repository
	home string // the directory of all written files
	out  io.Writer
}

func (w workspace) printLine(format string, args ...any) {
	_, _ = fmt.Fprintf(w.out, format+"\n", args...)
}

// config returns a path in the directory config of the repository.
func (w workspace) config(elements ...string) string {
	return filepath.Join(append([]string{w.root, "config"}, elements...)...)
}

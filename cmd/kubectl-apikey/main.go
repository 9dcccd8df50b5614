// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-apikey is the kubectl plugin that creates, lists, reveals, exports and ends API keys: kubectl apikey.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/internal/version"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	// What goes wrong is told by errors. The libraries' logs would only repeat it.
	klog.SetLogger(logr.Discard())
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes a command line and returns the exit code of the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		for _, text := range explain(failed.error) {
			_, _ = fmt.Fprintf(stderr, "Error: %s\n", text)
		}
		return exitFailure
	default:
		_, _ = fmt.Fprintf(stderr, "Error: %v\nRun '%s --help' for usage.\n", err, command.CommandPath())
		return exitUsage
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "kubectl-apikey",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl apikey"},
		Short:         "Create, list and end API keys",
		Long:          "Create, list and end the API keys of a namespace: its APIKey objects. Needs a kubeconfig, and no API key.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true // kubectl asks the plugin itself
	cluster := newCluster(root.PersistentFlags())
	root.AddCommand(
		newCreateCommand(cluster),
		newListCommand(cluster),
		newCountCommand(cluster),
		newDeactivateCommand(cluster),
		newRevealCommand(cluster),
		newExportCommand(cluster),
	)
	return root
}

// failure is an error of a command that was called as it should be.
type failure struct{ error }

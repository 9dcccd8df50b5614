// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	os.Exit(run(ctrl.SetupSignalHandler(), os.Args[1:], os.Stdout, os.Stderr))
}

// run executes a command line and returns the exit code of the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	var failed runError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		slog.Error("Exiting", "err", failed.error)
		return exitFailure
	default:
		_, _ = fmt.Fprintf(stderr, "Error: %v\nRun '%s --help' for usage.\n", err, command.CommandPath())
		return exitUsage
	}
}

func newRootCommand() *cobra.Command {
	var logs logFlags
	root := &cobra.Command{
		Use:           "apikey-operator",
		Short:         "API keys for services on Kubernetes",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(command *cobra.Command, _ []string) error {
			return logs.setUp(command.ErrOrStderr())
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	logs.register(root.PersistentFlags())
	root.AddCommand(newAuthenticatorCommand(), newConsoleCommand(), newControllerCommand(), newVersionCommand())
	return root
}

// daemon is a subcommand that runs until it is stopped.
type daemon interface {
	// validate returns an error for invalid flags.
	validate() error
	// run returns when the context is done, or on a failure.
	run(ctx context.Context) error
}

// runError is an error of daemon.run. All other errors of a command are usage errors.
type runError struct{ error }

// runDaemon returns the RunE of a subcommand.
func runDaemon(d daemon) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, _ []string) error {
		if err := d.validate(); err != nil {
			return err
		}
		setMemoryLimit()
		if err := d.run(command.Context()); err != nil {
			return runError{err}
		}
		return nil
	}
}

// setMemoryLimit sets GOMEMLIMIT from the memory limit of the pod. Without it, the garbage of the first list of many keys may exceed the
// limit.
func setMemoryLimit() {
	_, _ = memlimit.Set(memlimit.WithLogger(slog.Default())) // logs the error
}

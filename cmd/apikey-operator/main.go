// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Command apikey-operator is the controller that issues API keys, the authenticator that answers whether one is good, and the console that
// manages those of one namespace.
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
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		slog.Error("exiting", "err", failed.error)
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

// daemon is what a subcommand runs.
type daemon interface {
	// validate says which flag is wrong, and what to give instead.
	validate() error
	// run returns when the context is done, or on a failure.
	run(ctx context.Context) error
}

// runDaemon returns the RunE of a subcommand: what validate returns is a mistake of whoever called, what run returns is a failure.
func runDaemon(d daemon) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, _ []string) error {
		if err := d.validate(); err != nil {
			return err
		}
		leaveRoomInMemory()
		if err := d.run(command.Context()); err != nil {
			return failure{err}
		}
		return nil
	}
}

// leaveRoomInMemory has garbage collected more often near the memory limit of the pod: what the first list of many keys leaves behind would
// reach it.
func leaveRoomInMemory() {
	_, _ = memlimit.Set(memlimit.WithLogger(slog.Default())) // which gets the error
}

// failure is an error of a command that was called as it should be.
type failure struct{ error }

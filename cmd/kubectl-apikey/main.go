// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
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
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal terminates the process
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
		for _, message := range slices.Compact(messagesOf(failed.error)) {
			_, _ = fmt.Fprintf(stderr, "Error: %s\n", message)
		}
		return exitFailure
	default:
		_, _ = fmt.Fprintf(stderr, "Error: %v\nRun '%s --help' for usage.\n", err, command.CommandPath())
		return exitUsage
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:         "kubectl-apikey",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl apikey"},
		Short:       "Create, list, find, rotate, deactivate, prune, reveal and export API keys",
		Long: `Create, list, find, rotate, deactivate, prune, reveal and export API keys.

The commands work on the APIKeys of a namespace, with your kubeconfig and your RBAC permissions. They need no API key.`,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true // kubectl runs kubectl_complete-apikey
	root.SetUsageTemplate(usageTemplate)
	addVerbosity(root)
	cluster := newCluster(root.PersistentFlags())
	cluster.registerCompletions(root)
	root.AddCommand(
		newCreateCommand(cluster),
		newListCommand(cluster),
		newCountCommand(cluster),
		newRotateCommand(cluster),
		newDeactivateCommand(cluster),
		newPruneCommand(cluster),
		newWhoseCommand(cluster),
		newRevealCommand(cluster),
		newExportCommand(cluster),
		newOptionsCommand(),
	)
	return root
}

// addVerbosity adds kubectl's flag -v, which logs the requests to the API server.
func addVerbosity(root *cobra.Command) {
	logging := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(logging)
	verbosity := logging.Lookup("v")
	verbosity.Usage = "Level of the log: 6 logs the requests to the API server, 8 their contents, which may be tokens"
	root.PersistentFlags().AddGoFlag(verbosity)
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if verbosity.Value.String() == "0" { // the log would repeat the errors that commands return
			klog.SetLogger(logr.Discard())
		}
	}
}

// failure is the error of a command that was used correctly.
type failure struct{ error }

func asFailure(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

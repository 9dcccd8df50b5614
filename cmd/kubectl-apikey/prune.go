// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

type pruneOptions struct {
	selectOptions
	endedBefore duration
	dryRun      string
	printOptions
}

func newPruneCommand(cluster *cluster) *cobra.Command {
	o := &pruneOptions{printOptions: newPrintOptions("deleted")}
	command := &cobra.Command{
		Use:        "prune --ended-before=DURATION",
		SuggestFor: []string{"clean", "cleanup", "gc", "purge"},
		Short:      "Delete keys that ended long ago",
		Long: `Delete the keys of the namespace that were deactivated or have expired before a time. Active keys are never deleted.

As long as an APIKey exists that has ended, applying its manifest again does not make its token valid. The command therefore keeps, and
names, the keys that could be created again:

  - keys that Flux, Argo CD, Helm, kubectl apply or another deployment tool declares
  - keys with the hash of a token that was created elsewhere (spec.tokenHash)
  - bootstrap keys, which a console would create again from its key file

A key that changes after the command has read it is not deleted. If one deletion fails, the others are still made, and the exit code is 1.

The API server's time counts, not that of your machine.`,
		Example: `  # Print which keys would be deleted, and which would be kept
  kubectl apikey prune --ended-before=90d --dry-run

  # Delete the keys of all namespaces that ended more than a year ago
  kubectl apikey prune --ended-before=1y --all-namespaces

  # Save the objects before they are deleted
  kubectl apikey prune --ended-before=90d --dry-run -o yaml >ended.yaml`,
		Args:              noArguments,
		PreRunE:           func(command *cobra.Command, _ []string) error { return o.complete(command.Flags()) },
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := command.Flags()
	flags.Var(&o.endedBefore, "ended-before", "Delete keys that ended at least this long ago, such as 90d or 1y. Required.")
	flags.Lookup("ended-before").DefValue = "" // not 0s
	registerDryRun(command, &o.dryRun,
		"Print the keys without deleting them: none, client or server. With server, the API server checks each deletion.")
	o.register(flags)
	o.addFlags(command)
	return command
}

func (o *pruneOptions) complete(flags *pflag.FlagSet) error {
	if !flags.Changed("ended-before") {
		return errors.New("--ended-before is required, such as --ended-before=90d")
	}
	if err := errors.Join(o.validate(), validateDryRun(o.dryRun)); err != nil {
		return err
	}
	return o.printOptions.complete(flags)
}

func (o *pruneOptions) run(ctx context.Context, s *session, _ []string) error {
	keys, err := s.keys(ctx, o.selectOptions)
	if err != nil {
		return err
	}
	before := s.now().Add(-time.Duration(o.endedBefore.Duration))
	var errs []error
	deleted, kept := 0, 0
	for _, key := range keys {
		if ctx.Err() != nil {
			break // the request that was interrupted has an error
		}
		if ended := key.Status.DeactivatedAt; ended == nil || ended.After(before) {
			continue
		}
		if reason := reasonToKeep(key); reason != "" {
			kept++
			_, err := fmt.Fprintf(s.errOut, "Kept APIKey %q%s: %s.\n", key.Name, o.inNamespace(key), reason)
			errs = append(errs, err)
			continue
		}
		isDeleted, err := o.delete(ctx, s, key)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("delete APIKey %q%s: %w", key.Name, o.inNamespace(key), err))
		case isDeleted:
			deleted++
			errs = append(errs, o.print(s, key))
		}
	}
	_, err = fmt.Fprintf(s.errOut, "Deleted %d keys that ended before %s, kept %d%s.\n",
		deleted, timestamp(before), kept, dryRunSuffixes[o.dryRun])
	return errors.Join(append(errs, err)...)
}

// reasonToKeep returns why a key that has ended is not deleted, or "".
func reasonToKeep(key *v1alpha1.APIKey) string {
	switch declaredBy := keyclient.DeclaredBy(key); {
	case key.Unreadable != nil:
		return "fields cannot be read"
	case key.Labels[v1alpha1.LabelBootstrap] == "true":
		return "the console could create this bootstrap key again from its key file"
	case declaredBy != "":
		return declaredBy + " could create it again"
	case keyclient.IsImported(key):
		return "its token was imported, and would be valid again if its manifest is applied"
	default:
		return ""
	}
}

// delete deletes a key as it was read. It reports false if another client has deleted the key.
func (o *pruneOptions) delete(ctx context.Context, s *session, key *v1alpha1.APIKey) (isDeleted bool, err error) {
	if o.dryRun == dryRunClient {
		return true, nil
	}
	options := []client.DeleteOption{client.Preconditions{UID: &key.UID, ResourceVersion: &key.ResourceVersion}}
	if o.dryRun == dryRunServer {
		options = append(options, client.DryRunAll)
	}
	err = s.Delete(ctx, key, options...)
	switch {
	case keyclient.IsDenied(err):
		return false, err
	case apierrors.IsNotFound(err) && !isNotServed(err):
		return false, nil
	case apierrors.IsConflict(err):
		return false, errors.New("it has changed since the command read it; run the command again")
	default:
		return err == nil, err
	}
}

func (o *pruneOptions) print(s *session, key *v1alpha1.APIKey) error {
	if o.printer == nil {
		_, err := fmt.Fprintf(s.out, "apikey.%s/%s deleted%s%s\n",
			v1alpha1.GroupVersion.Group, key.Name, o.inNamespace(key), dryRunSuffixes[o.dryRun])
		return err
	}
	object, err := toUnstructured(key)
	if err != nil {
		return err
	}
	return o.printer.PrintObj(object, s.out)
}

// inNamespace names the namespace of a key if the command selects the keys of all namespaces.
func (o *pruneOptions) inNamespace(key *v1alpha1.APIKey) string {
	if !o.allNamespaces {
		return ""
	}
	return fmt.Sprintf(" in namespace %q", key.Namespace)
}

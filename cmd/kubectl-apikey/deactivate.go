// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

type deactivateOptions struct{ printOptions }

func newDeactivateCommand(cluster *cluster) *cobra.Command {
	o := &deactivateOptions{printOptions: newPrintOptions("deactivated")}
	command := &cobra.Command{
		Use:        "deactivate " + keyArgument + "...",
		SuggestFor: []string{"delete", "remove", "revoke", "disable", "end"},
		Short:      "Deactivate keys",
		Long: `Deactivate keys. Authenticators refuse them at once, and they never become active again.

Other keys may use their app names then. The APIKeys stay as a record.`,
		Example: `  # Deactivate the active key of an app
  kubectl apikey deactivate "Frontend App"

  # Deactivate two keys by their names
  kubectl apikey deactivate frontend-app-x7k2mq4a ci-pipeline-b2c4d6e7

  # Deactivate a key by its ID
  kubectl apikey deactivate 805a358f-4740-46ec-926f-ef4ac8d8ab92`,
		Args:              someKeys,
		PreRunE:           func(command *cobra.Command, _ []string) error { return o.complete(command.Flags()) },
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cluster.completeKeys(func(key *v1alpha1.APIKey) bool { return !apikey.IsRetired(key) }),
	}
	o.addFlags(command)
	return command
}

func (o *deactivateOptions) run(ctx context.Context, s *session, args []string) error {
	keys, err := s.find(ctx, args...)
	errs := []error{err}
	for _, key := range keys {
		errs = append(errs, o.deactivate(ctx, s, key))
	}
	return errors.Join(errs...)
}

func (o *deactivateOptions) deactivate(ctx context.Context, s *session, key *v1alpha1.APIKey) error {
	deactivated, err := keyclient.Deactivate(ctx, s, key.Namespace, key.Name, key.UID)
	if err != nil {
		return err
	}
	if err := o.print(s, deactivated); err != nil {
		return err
	}
	if tool := keyclient.ManagedBy(deactivated); tool != "" {
		advice := "set active: false in its manifest too. A manifest with active: true is refused now."
		if _, err := fmt.Fprintf(s.errOut, "\n%s manages APIKey %q: %s\n", tool, deactivated.Name, advice); err != nil {
			return err
		}
	}
	return printNextKey(ctx, s, deactivated.Spec.AppName)
}

func (o *deactivateOptions) print(s *session, key *v1alpha1.APIKey) error {
	if o.printer == nil {
		return printDetails(s.out, "API Key deactivated successfully", key,
			[2]string{"Updated At", timestamp(keyclient.UpdatedAt(key))},
			[2]string{"Last Used", lastUse(apikey.LastUsed(key), s.now())})
	}
	object, err := toUnstructured(key)
	if err != nil {
		return err
	}
	return o.printer.PrintObj(object, s.out)
}

// printNextKey names the key that the controller issues next for an app name, if one waits for it.
func printNextKey(ctx context.Context, s *session, appName string) error {
	keys, err := s.keys(ctx, selectOptions{chunkSize: defaultChunkSize})
	if err != nil {
		return fmt.Errorf("the key is deactivated, but finding a key that waits for its app name failed: %w", err)
	}
	var waiting []v1alpha1.APIKey
	for _, key := range ofAppName(keys, appName) {
		waiting = append(waiting, *key)
	}
	next := apikey.FirstForName(waiting)
	if next == nil {
		return nil
	}
	_, err = fmt.Fprintf(s.errOut, "\nAPIKey %q gets the app name %q now.\n", next.Name, appName)
	return err
}

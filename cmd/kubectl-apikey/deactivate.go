// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"squirrel.dev/apikey-operator/internal/keyclient"
)

type deactivateOptions struct{ printOptions }

func newDeactivateCommand(cluster *cluster) *cobra.Command {
	o := &deactivateOptions{printOptions: newPrintOptions("deactivated")}
	command := &cobra.Command{
		Use:   "deactivate NAME|ID...",
		Short: "Deactivate keys",
		Long: `Deactivate keys. Authenticators refuse them at once, and they never become active again.

Other keys may use their app names then. The APIKeys stay as a record.`,
		Example: `  # Deactivate a key by its name
  kubectl apikey deactivate frontend-app-x7k2mq4a

  # Deactivate a key by its ID
  kubectl apikey deactivate 805a358f-4740-46ec-926f-ef4ac8d8ab92`,
		Args:              someKeys,
		PreRunE:           func(command *cobra.Command, _ []string) error { return o.complete(command.Flags()) },
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cluster.completeNames,
	}
	o.flags.AddFlags(command)
	return command
}

func (o *deactivateOptions) run(ctx context.Context, s *session, args []string) error {
	var errs []error
	for _, nameOrID := range args {
		errs = append(errs, o.deactivate(ctx, s, nameOrID))
	}
	return errors.Join(errs...)
}

func (o *deactivateOptions) deactivate(ctx context.Context, s *session, nameOrID string) error {
	key, err := s.find(ctx, nameOrID)
	if err != nil {
		return err
	}
	key, err = keyclient.Deactivate(ctx, s, key.Namespace, key.Name, key.UID)
	if err != nil {
		return err
	}
	if o.printer == nil {
		return printDetails(s.out, "API Key deactivated successfully", key, [2]string{"Updated At", timestamp(keyclient.UpdatedAt(key))})
	}
	object, err := toUnstructured(key)
	if err != nil {
		return err
	}
	return o.printer.PrintObj(object, s.out)
}

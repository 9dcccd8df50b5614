// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// deactivate ends keys for good.
type deactivate struct {
	output  *genericclioptions.PrintFlags
	printer printers.ResourcePrinter // nil prints text
}

func newDeactivateCommand(cluster *cluster) *cobra.Command {
	d := &deactivate{output: genericclioptions.NewPrintFlags("deactivated")}
	command := &cobra.Command{
		Use:   "deactivate NAME|ID...",
		Short: "End keys for good",
		Long: `End keys for good: they are refused at once, and never become active again. Their app names are free for other keys.
The objects stay, so that it is known that there was such a key.`,
		Example: `  kubectl apikey deactivate frontend-app-x7k2mq4a
  kubectl apikey deactivate 805a358f-4740-46ec-926f-ef4ac8d8ab92`,
		Args: someKeys,
		PreRunE: func(command *cobra.Command, _ []string) (err error) {
			if command.Flags().Changed("output") || command.Flags().Changed("template") {
				d.printer, err = d.output.ToPrinter()
			}
			return err
		},
		RunE:              cluster.run(d.run),
		ValidArgsFunction: cluster.completeNames,
	}
	d.output.AddFlags(command)
	return command
}

func (d *deactivate) run(ctx context.Context, s *session, args []string) error {
	var errs []error
	for _, nameOrID := range args {
		errs = append(errs, d.deactivate(ctx, s, nameOrID))
	}
	return errors.Join(errs...)
}

func (d *deactivate) deactivate(ctx context.Context, s *session, nameOrID string) error {
	key, err := s.find(ctx, nameOrID)
	if err != nil {
		return err
	}
	key, err = keyclient.Deactivate(ctx, s, key.Namespace, key.Name, key.UID)
	if err != nil {
		return err
	}
	return d.print(s, key)
}

func (d *deactivate) print(s *session, key *v1alpha1.APIKey) error {
	if d.printer == nil {
		return printFacts(s.out, "API Key deactivated successfully", key, [2]string{"Updated At", timestamp(keyclient.UpdatedAt(key))})
	}
	object, err := objectOf(key)
	if err != nil {
		return err
	}
	return d.printer.PrintObj(object, s.out)
}

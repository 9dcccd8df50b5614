// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// selectOptions are the flags that select keys.
type selectOptions struct {
	activeOnly    bool
	allNamespaces bool
}

func (o *selectOptions) register(flags *pflag.FlagSet) {
	flags.BoolVarP(&o.activeOnly, "active-only", "a", false, "Select only the keys that authenticators accept.")
	flags.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "Select the keys of all namespaces.")
}

func (o *selectOptions) keys(ctx context.Context, s *session, now time.Time) ([]*v1alpha1.APIKey, error) {
	keys, err := s.keys(ctx, o.allNamespaces)
	if o.activeOnly {
		keys = slices.DeleteFunc(keys, func(key *v1alpha1.APIKey) bool { return !keyclient.IsActive(key, now) })
	}
	return keys, err
}

// keys returns the keys of the namespace, or of all namespaces, in the order of their creation.
func (s *session) keys(ctx context.Context, allNamespaces bool) ([]*v1alpha1.APIKey, error) {
	namespace := s.namespace
	if allNamespaces {
		namespace = metav1.NamespaceAll
	}
	var keys []*v1alpha1.APIKey
	err := each(ctx, s, namespace, func() client.ObjectList { return &v1alpha1.APIKeyList{} }, func(key *v1alpha1.APIKey) {
		keys = append(keys, key)
	})
	slices.SortFunc(keys, keyclient.CompareCreation)
	return keys, err
}

type listOptions struct {
	selectOptions
	noHeaders bool
	output    *genericclioptions.PrintFlags
	printer   printers.ResourcePrinter // nil prints a table
}

func newListCommand(cluster *cluster) *cobra.Command {
	o := &listOptions{output: genericclioptions.NewPrintFlags("").WithDefaultOutput("table")}
	command := &cobra.Command{
		Use:   "list",
		Short: "List keys",
		Long:  "List keys in the order of their creation, including deactivated and expired ones.",
		Example: `  # List all keys of the namespace
  kubectl apikey list

  # List the active keys of all namespaces, with their names
  kubectl apikey list -a -A -o wide`,
		Args:              cobra.NoArgs,
		PreRunE:           func(*cobra.Command, []string) error { return o.complete() },
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.register(command.Flags())
	command.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Do not print the header of the table.")
	o.output.AddFlags(command)
	command.Flag("output").Usage = "Output format: table, wide, or a format of kubectl such as json, yaml, name or jsonpath=..."
	return command
}

func (o *listOptions) complete() (err error) {
	if format := *o.output.OutputFormat; format == "table" || format == "wide" {
		return nil
	}
	o.printer, err = o.output.ToPrinter()
	return err
}

func (o *listOptions) run(ctx context.Context, s *session, _ []string) error {
	now := time.Now()
	keys, err := o.keys(ctx, s, now)
	switch {
	case err != nil:
		return err
	case o.printer != nil:
		list, err := toList(keys)
		if err != nil {
			return err
		}
		return o.printer.PrintObj(list, s.out)
	case len(keys) == 0 && o.allNamespaces:
		_, err = fmt.Fprintln(s.errOut, "No API keys found.")
		return err
	case len(keys) == 0:
		_, err = fmt.Fprintf(s.errOut, "No API keys found in namespace %q.\n", s.namespace)
		return err
	default:
		options := printers.PrintOptions{NoHeaders: o.noHeaders, WithNamespace: o.allNamespaces, Wide: *o.output.OutputFormat == "wide"}
		return printers.NewTablePrinter(options).PrintObj(tableOf(keys, now), s.out)
	}
}

// tableOf returns a table. Its last columns are for -o wide only.
func tableOf(keys []*v1alpha1.APIKey, now time.Time) *metav1.Table {
	const wide = 1
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "ID"}, {Name: "App Name"}, {Name: "Active"}, {Name: "Read"}, {Name: "Write"}, {Name: "Created"}, {Name: "Updated"},
		{Name: "Expires", Priority: wide}, {Name: "Hint", Priority: wide}, {Name: "Reason", Priority: wide}, {Name: "Name", Priority: wide},
	}}
	for _, key := range keys {
		table.Rows = append(table.Rows, metav1.TableRow{
			Object: runtime.RawExtension{Object: key},
			Cells: []any{
				string(key.UID), key.Spec.AppName, keyclient.IsActive(key, now), key.Spec.ReadAccess, key.Spec.WriteAccess,
				timestamp(key.CreationTimestamp.Time), timestamp(keyclient.UpdatedAt(key)),
				expiry(key), hint(key), reason(key), key.Name,
			},
		})
	}
	return table
}

const none = "<none>"

func expiry(key *v1alpha1.APIKey) string {
	if key.Spec.ExpiresAt == nil {
		return none
	}
	return timestamp(key.Spec.ExpiresAt.Time)
}

func hint(key *v1alpha1.APIKey) string {
	if !apikey.IsClaimed(key) || key.Status.Tokens[0].Hint == "" {
		return none
	}
	return key.Status.Tokens[0].Hint
}

func reason(key *v1alpha1.APIKey) string {
	if ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return none
}

func newCountCommand(cluster *cluster) *cobra.Command {
	var o selectOptions
	command := &cobra.Command{
		Use:   "count",
		Short: "Print the number of keys",
		Long:  "Print the number of keys, including deactivated and expired ones.",
		Example: `  # Count the active keys of the namespace
  kubectl apikey count -a`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cluster.run(func(ctx context.Context, s *session, _ []string) error {
			keys, err := o.keys(ctx, s, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.out, len(keys))
			return err
		}),
	}
	o.register(command.Flags())
	return command
}

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

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// selection says which keys are meant.
type selection struct {
	activeOnly    bool
	allNamespaces bool
}

func (f *selection) register(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.activeOnly, "active-only", "a", false, "Only the keys that are accepted.")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "The keys of all namespaces.")
}

func (f *selection) keys(ctx context.Context, s *session, now time.Time) ([]*v1alpha1.APIKey, error) {
	namespace := s.namespace
	if f.allNamespaces {
		namespace = metav1.NamespaceAll
	}
	keys, err := s.keys(ctx, namespace)
	if f.activeOnly {
		keys = slices.DeleteFunc(keys, func(key *v1alpha1.APIKey) bool { return !keyclient.IsActive(key, now) })
	}
	return keys, err
}

// list prints keys.
type list struct {
	selection
	noHeaders bool
	output    *genericclioptions.PrintFlags
	printer   printers.ResourcePrinter // nil prints a table
}

func newListCommand(cluster *cluster) *cobra.Command {
	l := &list{output: genericclioptions.NewPrintFlags("").WithDefaultOutput("table")}
	command := &cobra.Command{
		Use:   "list",
		Short: "List keys",
		Example: `  # All keys of the namespace, ended ones too
  kubectl apikey list

  # The active keys of all namespaces, with their names
  kubectl apikey list -a -A -o wide`,
		Args:              cobra.NoArgs,
		PreRunE:           func(*cobra.Command, []string) error { return l.complete() },
		RunE:              cluster.run(l.run),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	l.register(command.Flags())
	command.Flags().BoolVar(&l.noHeaders, "no-headers", false, "Print no headers.")
	l.output.AddFlags(command)
	command.Flag("output").Usage = "Output format: table, wide, or another one of kubectl's, such as json, yaml, name and jsonpath=..."
	return command
}

func (l *list) complete() (err error) {
	if format := *l.output.OutputFormat; format == "table" || format == "wide" {
		return nil
	}
	l.printer, err = l.output.ToPrinter()
	return err
}

func (l *list) run(ctx context.Context, s *session, _ []string) error {
	now := time.Now()
	keys, err := l.keys(ctx, s, now)
	switch {
	case err != nil:
		return err
	case l.printer != nil:
		objects, err := listOf(keys)
		if err != nil {
			return err
		}
		return l.printer.PrintObj(objects, s.out)
	case len(keys) == 0 && l.allNamespaces:
		_, err = fmt.Fprintln(s.errOut, "No API keys found.")
		return err
	case len(keys) == 0:
		_, err = fmt.Fprintf(s.errOut, "No API keys found in namespace %q.\n", s.namespace)
		return err
	default:
		options := printers.PrintOptions{NoHeaders: l.noHeaders, WithNamespace: l.allNamespaces, Wide: *l.output.OutputFormat == "wide"}
		return printers.NewTablePrinter(options).PrintObj(tableOf(keys, now), s.out)
	}
}

// tableOf has the columns that -o wide adds at the end.
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
	var f selection
	command := &cobra.Command{
		Use:               "count",
		Short:             "Print how many keys there are",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cluster.run(func(ctx context.Context, s *session, _ []string) error {
			keys, err := f.keys(ctx, s, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.out, len(keys))
			return err
		}),
	}
	f.register(command.Flags())
	return command
}

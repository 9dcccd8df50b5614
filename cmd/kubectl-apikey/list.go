// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/tools/pager"
	"k8s.io/kubectl/pkg/cmd/get"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// selectOptions are the flags that select keys.
type selectOptions struct {
	allNamespaces bool
	labels        string
	fields        string
	chunkSize     int64 // 0 for all keys in one response
}

const defaultChunkSize = 500 // as in kubectl

func (o *selectOptions) register(flags *pflag.FlagSet) {
	flags.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "Select the keys of all namespaces.")
	flags.StringVarP(&o.labels, "selector", "l", "", "Select the keys with these labels, such as team=blue,stage!=test.")
	flags.StringVar(&o.fields, "field-selector", "", "Select the keys with these fields, such as metadata.name=partner.")
	flags.Int64Var(&o.chunkSize, "chunk-size", defaultChunkSize, "Maximum number of keys in a response of the API server; 0 for no maximum.")
}

func (o *selectOptions) validate() error {
	if _, err := labels.Parse(o.labels); err != nil {
		return fmt.Errorf("--selector: %w", err)
	}
	if _, err := fields.ParseSelector(o.fields); err != nil {
		return fmt.Errorf("--field-selector: %w", err)
	}
	if o.chunkSize < 0 {
		return errors.New("--chunk-size must not be negative")
	}
	return nil
}

// keys returns the selected keys in the order of their creation. It reads them page by page.
func (s *session) keys(ctx context.Context, o selectOptions) ([]*v1alpha1.APIKey, error) {
	namespace := s.namespace
	if o.allNamespaces {
		namespace = metav1.NamespaceAll
	}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := &v1alpha1.APIKeyList{}
		err := s.List(ctx, list, client.InNamespace(namespace), client.Limit(options.Limit), client.Continue(options.Continue),
			&client.ListOptions{Raw: &options})
		return list, err
	})
	pages.PageSize = o.chunkSize
	list, _, err := pages.List(ctx, metav1.ListOptions{LabelSelector: o.labels, FieldSelector: o.fields})
	if err != nil {
		return nil, err
	}
	var keys []*v1alpha1.APIKey
	err = meta.EachListItem(list, func(item runtime.Object) error {
		keys = append(keys, item.(*v1alpha1.APIKey))
		return nil
	})
	slices.SortFunc(keys, keyclient.CompareCreation)
	return keys, err
}

// stateOptions are the flags that select keys by their state.
type stateOptions struct {
	activeOnly       bool
	unused, expiring duration
	flags            *pflag.FlagSet
}

func (o *stateOptions) register(flags *pflag.FlagSet) {
	o.flags = flags
	flags.BoolVarP(&o.activeOnly, "active-only", "a", false, "Select only the keys that authenticators accept.")
	flags.Var(&o.unused, "unused", "Select only the active keys that were not used for this time, at least 1d, such as 90d.")
	flags.Var(&o.expiring, "expiring", "Select only the active keys that expire within this time, such as 30d.")
	for _, name := range []string{"unused", "expiring"} {
		flags.Lookup(name).DefValue = "" // not 0s
	}
}

func (o *stateOptions) validate() error {
	switch {
	case o.flags.Changed("unused") && time.Duration(o.unused.Duration) < apikey.LastUseResolution:
		return errors.New("--unused must be at least 1d, because the last use of a key is recorded once a day")
	case o.flags.Changed("expiring") && o.expiring.Duration == 0:
		return errors.New("--expiring must be greater than 0, such as 30d")
	default:
		return nil
	}
}

// filter returns the keys that the flags select. It warns of unused keys that may be in use.
func (o *stateOptions) filter(s *session, keys []*v1alpha1.APIKey) ([]*v1alpha1.APIKey, error) {
	now := s.now()
	anyUsed := slices.ContainsFunc(keys, func(key *v1alpha1.APIKey) bool { return apikey.LastUsed(key) != nil })
	selected := slices.DeleteFunc(keys, func(key *v1alpha1.APIKey) bool { return !o.selects(key, now) })
	if !o.flags.Changed("unused") || len(selected) == 0 || anyUsed {
		return selected, nil
	}
	_, err := fmt.Fprintln(s.errOut,
		"Warning: no use of any of the keys is on record. They may be in use: check that the controller records uses.")
	return selected, err
}

// selects reports whether a key has the state that the flags select. A key that is never used counts as unused since its newest token was
// issued.
func (o *stateOptions) selects(key *v1alpha1.APIKey, now time.Time) bool {
	unused, expiring := o.flags.Changed("unused"), o.flags.Changed("expiring")
	switch {
	case (o.activeOnly || unused || expiring) && !keyclient.IsActive(key, now):
		return false
	case unused && apikey.UnusedSince(key).After(now.Add(-time.Duration(o.unused.Duration))):
		return false
	case expiring && (key.Spec.ExpiresAt == nil || key.Spec.ExpiresAt.After(now.Add(time.Duration(o.expiring.Duration)))):
		return false
	default:
		return true
	}
}

type listOptions struct {
	selectOptions
	stateOptions
	output  *get.PrintFlags
	printer printers.ResourcePrinter
}

func newListCommand(cluster *cluster) *cobra.Command {
	o := &listOptions{output: get.NewGetPrintFlags()}
	command := &cobra.Command{
		Use:        "list",
		SuggestFor: []string{"get", "show"},
		Short:      "List keys",
		Long: `List keys in the order of their creation, including deactivated and expired ones.

The last use of a key may be up to a day later than the column LAST USED shows. <none> means that no use is on record: the key was never
used, or not since its token was rotated, or the controller did not record uses then. With --unused, such a key is selected if its token was
issued that long ago.

The API server's time counts, not that of your machine.

To watch keys, use 'kubectl get apikeys --watch'.`,
		Example: `  # List all keys of the namespace
  kubectl apikey list

  # List the active keys of all namespaces, with their names
  kubectl apikey list -a -A -o wide

  # List the active keys that were not used for 90 days, and those that expire within 30 days
  kubectl apikey list --unused=90d
  kubectl apikey list --expiring=30d

  # List the keys of a team in the order of their app names
  kubectl apikey list -l team=blue --sort-by=.spec.appName

  # Print the names and app names of the keys
  kubectl apikey list -o custom-columns=NAME:.metadata.name,APP:.spec.appName`,
		Args:              noArguments,
		PreRunE:           func(*cobra.Command, []string) error { return o.complete() },
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.stateOptions.register(command.Flags())
	o.selectOptions.register(command.Flags())
	o.output.HumanReadableFlags.ShowKind = nil // all are APIKeys
	o.output.AddFlags(command)
	describeOutputFlags(command, o.output.AllowedFormats(), "a table")
	command.Flag("show-labels").Usage = "Print the labels in the last column."
	command.Flag("label-columns").Usage = "Print these labels as columns, such as team,stage."
	command.Flag("sort-by").Usage = "Sort by this field, a JSONPath expression such as .spec.appName. Default: the order of creation."
	command.Flag("no-headers").Usage = "Print no headers in a table or in custom columns."
	return command
}

// noArguments refuses arguments.
func noArguments(command *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case command.Flag("selector") != nil:
		return fmt.Errorf("%s takes no arguments: select keys with --selector (-l) or --field-selector", command.CommandPath())
	default:
		return fmt.Errorf("%s takes no arguments", command.CommandPath())
	}
}

func (o *listOptions) complete() (err error) {
	if err := errors.Join(o.selectOptions.validate(), o.stateOptions.validate()); err != nil {
		return err
	}
	if o.allNamespaces {
		if err := o.output.EnsureWithNamespace(); err != nil {
			return err
		}
	}
	o.printer, err = o.output.ToPrinter()
	return err
}

// printsTable reports whether the output is a table with the columns of this program.
func (o *listOptions) printsTable() bool {
	return *o.output.TemplateFlags.TemplateArgument == "" && (*o.output.OutputFormat == "" || *o.output.OutputFormat == "wide")
}

func (o *listOptions) run(ctx context.Context, s *session, _ []string) error {
	keys, err := s.keys(ctx, o.selectOptions)
	if err != nil {
		return err
	}
	if keys, err = o.filter(s, keys); err != nil {
		return err
	}
	keys, err = o.sort(keys)
	switch {
	case err != nil:
		return err
	case !o.printsTable():
		list, err := toList(keys, toUnstructured)
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
		return o.printer.PrintObj(tableOf(keys, s.now()), s.out)
	}
}

// sort returns the keys in the order of --sort-by.
func (o *listOptions) sort(keys []*v1alpha1.APIKey) ([]*v1alpha1.APIKey, error) {
	if *o.output.HumanReadableFlags.SortBy == "" || len(keys) == 0 {
		return keys, nil
	}
	list, err := toList(keys, toUnstructured)
	if err != nil {
		return nil, err
	}
	objects, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	sorter, err := get.SortObjects(nil, objects, *o.output.HumanReadableFlags.SortBy)
	if err != nil {
		return nil, fmt.Errorf("--sort-by: %w", err)
	}
	sorted := make([]*v1alpha1.APIKey, len(keys))
	for i := range keys {
		sorted[i] = keys[sorter.OriginalPosition(i)]
	}
	return sorted, nil
}

// tableOf returns a table. Its last columns are for -o wide only.
func tableOf(keys []*v1alpha1.APIKey, now time.Time) *metav1.Table {
	const wide = 1
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "ID"}, {Name: "App Name"}, {Name: "Active"}, {Name: "Read"}, {Name: "Write"}, {Name: "Created"}, {Name: "Updated"},
		{Name: "Last Used"}, {Name: "Expires", Priority: wide}, {Name: "Next Rotation", Priority: wide}, {Name: "Hint", Priority: wide},
		{Name: "Reason", Priority: wide}, {Name: "Name", Priority: wide},
	}}
	for _, key := range keys {
		table.Rows = append(table.Rows, metav1.TableRow{
			Object: runtime.RawExtension{Object: key},
			Cells: []any{
				string(key.UID), key.Spec.AppName, keyclient.IsActive(key, now), key.Spec.ReadAccess, key.Spec.WriteAccess,
				timestamp(key.CreationTimestamp.Time), timestamp(keyclient.UpdatedAt(key)),
				age(apikey.LastUsed(key), now), orNone(key.Spec.ExpiresAt), orNone(key.Status.NextRotationAt), hint(key), reason(key), key.Name,
			},
		})
	}
	return table
}

const none = "<none>"

func orNone(at *metav1.Time) string {
	if at == nil {
		return none
	}
	return timestamp(at.Time)
}

func hint(key *v1alpha1.APIKey) string {
	return cmp.Or(apikey.HintOf(key), none)
}

func reason(key *v1alpha1.APIKey) string {
	if ready := meta.FindStatusCondition(key.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return none
}

type countOptions struct {
	selectOptions
	stateOptions
}

func newCountCommand(cluster *cluster) *cobra.Command {
	o := &countOptions{}
	command := &cobra.Command{
		Use:   "count",
		Short: "Print the number of keys",
		Long:  "Print the number of keys, including deactivated and expired ones.",
		Example: `  # Count the active keys of the namespace
  kubectl apikey count -a

  # Count the active keys of all namespaces that were not used for 90 days
  kubectl apikey count -A --unused=90d`,
		Args: noArguments,
		PreRunE: func(*cobra.Command, []string) error {
			return errors.Join(o.selectOptions.validate(), o.stateOptions.validate())
		},
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.stateOptions.register(command.Flags())
	o.selectOptions.register(command.Flags())
	return command
}

func (o *countOptions) run(ctx context.Context, s *session, _ []string) error {
	keys, err := s.keys(ctx, o.selectOptions)
	if err != nil {
		return err
	}
	if keys, err = o.filter(s, keys); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, len(keys))
	return err
}

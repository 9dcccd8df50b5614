// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/printers"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

type exportOptions struct {
	selectOptions
	output string
}

func newExportCommand(cluster *cluster) *cobra.Command {
	o := &exportOptions{}
	command := &cobra.Command{
		Use:   "export [" + keyArgument + "...]",
		Short: "Print manifests of active keys with the hashes of their tokens",
		Long: `Print manifests of active keys, of all or of those that you name, for Git, for another cluster or for a restore.

The manifests contain the hashes of the tokens. Wherever you apply them, the tokens that clients have are accepted. Keys that have ended
or are not issued are left out.

The labels and annotations by which tools such as Argo CD, Flux and Helm recognize their objects are left out: a tool would prune the
copies. The label that allows a key to manage other keys is left out too: set it again where it is needed. The bootstrap key of a console
is exported only if you name it.

Of a key that was rotated, only the newest token is exported. The command names the others that are still accepted.`,
		Example: `  # Save the keys of a namespace
  kubectl apikey export -n shop >keys.yaml

  # Copy the keys of a namespace to another cluster
  kubectl apikey export -n shop | kubectl apply --context=other -f -

  # Export the keys of a team
  kubectl apikey export -l team=blue`,
		PreRunE:           func(_ *cobra.Command, args []string) error { return o.validate(args) },
		RunE:              cluster.run(o.run),
		ValidArgsFunction: cluster.completeKeys(isExported),
	}
	o.register(command.Flags())
	command.Flags().StringVarP(&o.output, "output", "o", "yaml", "Output format: yaml or json.")
	completeFlag(command, "output", "yaml", "json")
	return command
}

func (o *exportOptions) validate(args []string) error {
	switch {
	case o.output != "yaml" && o.output != "json":
		return fmt.Errorf("--output=%q is unknown: use yaml or json", o.output)
	case len(args) > 0 && (o.allNamespaces || o.labels != "" || o.fields != ""):
		return errors.New("the names of keys are mutually exclusive with --all-namespaces, --selector and --field-selector")
	default:
		return o.selectOptions.validate()
	}
}

func (o *exportOptions) run(ctx context.Context, s *session, args []string) error {
	if len(args) > 0 {
		return o.exportNamed(ctx, s, args)
	}
	keys, err := s.keys(ctx, o.selectOptions)
	if err != nil {
		return err
	}
	slices.SortFunc(keys, func(a, b *v1alpha1.APIKey) int { // by name, so that the order stays the same in Git
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var exported []*v1alpha1.APIKey
	var errs []error
	inactive, bootstrap := 0, 0
	for _, key := range keys {
		switch {
		case key.Unreadable != nil:
			errs = append(errs, unreadable(key))
		case !keyclient.IsActive(key, time.Now()):
			inactive++
		case key.Labels[v1alpha1.LabelBootstrap] == "true": // elsewhere, it would give access to the administrators of this console
			bootstrap++
		default:
			exported = append(exported, key)
		}
	}
	if err := o.print(s, exported); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.errOut, "Exported %d keys. Left out %d inactive keys and %d bootstrap keys.\n", len(exported), inactive, bootstrap)
	return errors.Join(append(errs, err)...)
}

// isExported reports whether the key can be exported.
func isExported(key *v1alpha1.APIKey) bool {
	return key.Unreadable == nil && keyclient.IsActive(key, time.Now())
}

func unreadable(key *v1alpha1.APIKey) error {
	return fmt.Errorf("APIKey %q in namespace %q is not exported, because fields cannot be read: correct %s",
		key.Name, key.Namespace, strings.Join(key.Unreadable, ", "))
}

// exportNamed exports the named keys. It returns an error for each of them that cannot be exported, and prints the others.
func (o *exportOptions) exportNamed(ctx context.Context, s *session, args []string) error {
	keys, err := s.find(ctx, args...)
	errs := []error{err}
	var exported []*v1alpha1.APIKey
	for _, key := range keys {
		switch {
		case key.Unreadable != nil:
			errs = append(errs, unreadable(key))
		case !keyclient.IsActive(key, time.Now()):
			errs = append(errs, fmt.Errorf("APIKey %q is not exported, because it is not active (%s)", key.Name, reason(key)))
		default:
			exported = append(exported, key)
		}
	}
	return errors.Join(append(errs, o.print(s, exported))...)
}

func (o *exportOptions) print(s *session, keys []*v1alpha1.APIKey) error {
	manifests := make([]*v1alpha1.APIKey, len(keys))
	managers := 0
	for i, key := range keys {
		manifests[i] = manifestOf(key)
		if key.Labels[v1alpha1.LabelManager] == "true" {
			managers++
		}
	}
	list, err := toList(manifests, toManifest)
	if err != nil {
		return err
	}
	if err := o.printList(s, list); err != nil {
		return err
	}
	for _, key := range keys {
		if err := printLeftOut(s, key); err != nil {
			return err
		}
	}
	if managers == 0 {
		return nil
	}
	_, err = fmt.Fprintf(s.errOut, "Left out the label %s of %d keys: set it again on those that may create and deactivate other keys.\n",
		v1alpha1.LabelManager, managers)
	return err
}

// printLeftOut names the tokens of a key that are accepted, and are not exported.
func printLeftOut(s *session, key *v1alpha1.APIKey) error {
	newest := apikey.NewestToken(key)
	for i := range key.Status.Tokens {
		record := &key.Status.Tokens[i]
		var end string
		switch {
		case record.Hash == newest.Hash || record.NotBefore == nil || apikey.HasEnded(record, time.Now()):
			continue
		case record.NotAfter == nil:
			end = "it is being handed over: export the key again later"
		default:
			end = "it was superseded, and ends at " + timestamp(record.NotAfter.Time)
		}
		if _, err := fmt.Fprintf(s.errOut, "Left out the token %s of APIKey %q: %s.\n", cmp.Or(record.Hint, none), key.Name, end); err != nil {
			return err
		}
	}
	return nil
}

func (o *exportOptions) printList(s *session, list *unstructured.UnstructuredList) error {
	if o.output == "json" {
		return (&printers.JSONPrinter{}).PrintObj(list, s.out)
	}
	documents := &printers.YAMLPrinter{}
	for i := range list.Items {
		if err := documents.PrintObj(&list.Items[i], s.out); err != nil {
			return err
		}
	}
	return nil
}

// manifestOf returns an APIKey that imports the token of an issued key.
func manifestOf(key *v1alpha1.APIKey) *v1alpha1.APIKey {
	labels, annotations := keyclient.DeclaredMetadata(key)
	delete(labels, v1alpha1.LabelManager)
	newest := apikey.NewestToken(key)
	manifest := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: labels, Annotations: annotations},
		Spec: v1alpha1.APIKeySpec{
			AppName:     key.Spec.AppName,
			ReadAccess:  key.Spec.ReadAccess,
			WriteAccess: key.Spec.WriteAccess,
			ExpiresAt:   key.Spec.ExpiresAt,
			TokenHash:   newest.Hash,
			TokenHint:   newest.Hint,
		},
	}
	if key.Spec.Rotation != nil && key.Spec.Rotation.Overlap != nil { // the other fields are only for tokens that the controller mints
		manifest.Spec.Rotation = &v1alpha1.Rotation{Overlap: key.Spec.Rotation.Overlap}
	}
	return manifest
}

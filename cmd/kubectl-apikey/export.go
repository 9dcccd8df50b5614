// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/printers"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
)

// export prints manifests that make the same tokens good again elsewhere.
type export struct {
	allNamespaces bool
	output        string
}

func newExportCommand(cluster *cluster) *cobra.Command {
	e := &export{}
	command := &cobra.Command{
		Use:   "export [NAME|ID...]",
		Short: "Print manifests of active keys, by the hashes of their tokens",
		Long: `Print manifests of active keys, all or some, for Git, for a second cluster or for a restore. They hold the hashes of the tokens,
so that the tokens that clients have are good wherever the manifests are applied. Keys that have ended, or are not issued, are left out.

The bootstrap key of a management API, which may do everything there, is exported only if it is named. The label that lets a key manage
others is left out: it is for the place where it was given.`,
		Example: `  # Restore the keys of a namespace in another cluster
  kubectl apikey export -n shop | kubectl apply --context=other -f -`,
		PreRunE:           func(_ *cobra.Command, args []string) error { return e.validate(args) },
		RunE:              cluster.run(e.run),
		ValidArgsFunction: cluster.completeNames,
	}
	command.Flags().BoolVarP(&e.allNamespaces, "all-namespaces", "A", false, "The keys of all namespaces.")
	command.Flags().StringVarP(&e.output, "output", "o", "yaml", "Output format: yaml or json.")
	return command
}

func (e *export) validate(args []string) error {
	switch {
	case e.output != "yaml" && e.output != "json":
		return fmt.Errorf("--output=%q is unknown: give yaml or json", e.output)
	case e.allNamespaces && len(args) > 0:
		return errors.New("give either keys or --all-namespaces")
	default:
		return nil
	}
}

func (e *export) run(ctx context.Context, s *session, args []string) error {
	if len(args) > 0 {
		return e.exportNamed(ctx, s, args)
	}
	keys, err := e.keys(ctx, s)
	if err != nil {
		return err
	}
	var errs []error
	keys = slices.DeleteFunc(keys, func(key *v1alpha1.APIKey) bool {
		if key.Unreadable != nil {
			errs = append(errs, unreadable(key))
		}
		return key.Unreadable != nil
	})
	all := len(keys)
	keys = slices.DeleteFunc(keys, func(key *v1alpha1.APIKey) bool { return !keyclient.IsActive(key, time.Now()) })
	active := len(keys)
	keys = slices.DeleteFunc(keys, isBootstrapKey)
	if err := e.print(s, keys); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.errOut, "Exported %d keys. Left out %d that are not active, and %d bootstrap keys.\n",
		len(keys), all-active, active-len(keys))
	return errors.Join(append(errs, err)...)
}

// unreadable says why a key is not exported of which not all is known.
func unreadable(key *v1alpha1.APIKey) error {
	return fmt.Errorf("APIKey %q in namespace %q is not exported: fields of it cannot be read (%s)",
		key.Name, key.Namespace, strings.Join(key.Unreadable, ", "))
}

// isBootstrapKey says whether a management API gave itself this key. Elsewhere it would let in who administers this place.
func isBootstrapKey(key *v1alpha1.APIKey) bool { return key.Labels[v1alpha1.LabelBootstrap] == "true" }

// exportNamed exports these keys. One that cannot be exported is an error, after the others.
func (e *export) exportNamed(ctx context.Context, s *session, args []string) error {
	var keys []*v1alpha1.APIKey
	var errs []error
	for _, nameOrID := range args {
		key, err := s.find(ctx, nameOrID)
		switch {
		case err != nil:
			errs = append(errs, err)
		case key.Unreadable != nil:
			errs = append(errs, unreadable(key))
		case !keyclient.IsActive(key, time.Now()):
			errs = append(errs, fmt.Errorf("APIKey %q is not exported: it is not active (%s)", key.Name, reason(key)))
		default:
			keys = append(keys, key)
		}
	}
	return errors.Join(append(errs, e.print(s, keys))...)
}

// keys returns all keys, in an order that does not change when they are created anew.
func (e *export) keys(ctx context.Context, s *session) ([]*v1alpha1.APIKey, error) {
	namespace := s.namespace
	if e.allNamespaces {
		namespace = metav1.NamespaceAll
	}
	keys, err := s.keys(ctx, namespace)
	slices.SortFunc(keys, func(a, b *v1alpha1.APIKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return keys, err
}

func (e *export) print(s *session, keys []*v1alpha1.APIKey) error {
	manifests := make([]*v1alpha1.APIKey, len(keys))
	managers := 0
	for i, key := range keys {
		manifests[i] = manifestOf(key)
		if isManager(key) {
			managers++
		}
	}
	list, err := listOf(manifests)
	if err != nil {
		return err
	}
	for i := range list.Items {
		unstructured.RemoveNestedField(list.Items[i].Object, "status")
		unstructured.RemoveNestedField(list.Items[i].Object, "metadata", "creationTimestamp")
	}
	if err := e.printList(s, list); err != nil || managers == 0 {
		return err
	}
	_, err = fmt.Fprintf(s.errOut, "Left out the label %s of %d keys: label those again that are to create and end others there.\n",
		v1alpha1.LabelManager, managers)
	return err
}

func (e *export) printList(s *session, list *unstructured.UnstructuredList) error {
	if e.output == "json" {
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

// isManager says whether the key may create and end others where that takes a label.
func isManager(key *v1alpha1.APIKey) bool { return key.Labels[v1alpha1.LabelManager] == "true" }

// manifestOf declares a key whose token is that of an issued one.
func manifestOf(key *v1alpha1.APIKey) *v1alpha1.APIKey {
	annotations, labels := maps.Clone(key.Annotations), maps.Clone(key.Labels)
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	delete(labels, v1alpha1.LabelManager)
	newest := key.Status.Tokens[0]
	return &v1alpha1.APIKey{
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
}

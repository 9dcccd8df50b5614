// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/pager"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

var keyKind = v1alpha1.GroupVersion.WithKind("APIKey")

// oneKey and someKeys are the arguments of commands that take keys.
func oneKey(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("give the name or the ID of one key")
	}
	return nil
}

func someKeys(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("give the name or the ID of at least one key")
	}
	return nil
}

// find returns the key of this name or ID. Whoever may create keys may name one as another's ID: then it is not guessed which is meant.
func (s *session) find(ctx context.Context, nameOrID string) (*v1alpha1.APIKey, error) {
	named, err := s.named(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	identified, err := s.identified(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	switch {
	case named != nil && identified != nil:
		return nil, fmt.Errorf("%q is the name of one key and the ID of another: for the one of this name give its ID, %q; "+
			"for the one of this ID give its name, %q", nameOrID, named.UID, identified.Name)
	case named != nil:
		return named, nil
	case identified != nil:
		return identified, nil
	default:
		return nil, fmt.Errorf("no APIKey in namespace %q has the name or ID %q: 'kubectl apikey list -o wide' shows both", s.namespace, nameOrID)
	}
}

// named returns the key of this name, or nil.
func (s *session) named(ctx context.Context, name string) (*v1alpha1.APIKey, error) {
	key := &v1alpha1.APIKey{}
	err := s.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, key)
	if apierrors.IsNotFound(err) && !isNotServed(err) {
		key, err = nil, nil
	}
	return key, err
}

// identified returns the key of this ID, or nil.
func (s *session) identified(ctx context.Context, id string) (*v1alpha1.APIKey, error) {
	if isID := uuid.Validate(id) == nil; !isID {
		return nil, nil
	}
	name := ""
	err := s.eachMetadata(ctx, func(object *metav1.PartialObjectMetadata) {
		if object.UID == types.UID(id) {
			name = object.Name
		}
	})
	if err != nil || name == "" {
		return nil, err
	}
	key, err := s.named(ctx, name)
	if err != nil || key == nil || key.UID != types.UID(id) { // another has the name by now
		return nil, err
	}
	return key, nil
}

// keys returns the keys of a namespace, or of all if it is empty, in the order of their creation.
func (s *session) keys(ctx context.Context, namespace string) ([]*v1alpha1.APIKey, error) {
	var keys []*v1alpha1.APIKey
	err := each(ctx, s, namespace, func() client.ObjectList { return &v1alpha1.APIKeyList{} }, func(key *v1alpha1.APIKey) {
		keys = append(keys, key)
	})
	slices.SortFunc(keys, func(a, b *v1alpha1.APIKey) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return keys, err
}

// eachMetadata reads the names and IDs of the namespace's keys, and nothing else.
func (s *session) eachMetadata(ctx context.Context, do func(*metav1.PartialObjectMetadata)) error {
	return each(ctx, s, s.namespace, func() client.ObjectList {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(keyKind.GroupVersion().WithKind(keyKind.Kind + "List"))
		return list
	}, do)
}

// each reads a list page by page.
func each[T runtime.Object](ctx context.Context, s *session, namespace string, newList func() client.ObjectList, do func(T)) error {
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := newList()
		err := s.List(ctx, list, client.InNamespace(namespace), client.Limit(options.Limit), client.Continue(options.Continue))
		return list, err
	})
	list, _, err := pages.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return meta.EachListItem(list, func(item runtime.Object) error {
		do(item.(T))
		return nil
	})
}

// completeNames completes arguments that name keys.
func (c *cluster) completeNames(command *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	s, err := c.connect(command)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	err = s.eachMetadata(command.Context(), func(object *metav1.PartialObjectMetadata) {
		if !slices.Contains(given, object.Name) {
			names = append(names, object.Name)
		}
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

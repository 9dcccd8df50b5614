// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
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

// exactlyOneKey is the positional argument of a command for one key.
func exactlyOneKey(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("exactly one NAME or ID is required")
	}
	return nil
}

// someKeys are the positional arguments of a command for keys.
func someKeys(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("at least one NAME or ID is required")
	}
	return nil
}

// find returns the key with this name or ID. It refuses an argument that is both: a user who may create keys could choose the ID of
// another key as the name of one.
func (s *session) find(ctx context.Context, nameOrID string) (*v1alpha1.APIKey, error) {
	byName, err := s.findByName(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	byID, err := s.findByID(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	switch {
	case byName != nil && byID != nil:
		return nil, fmt.Errorf("%q is the name of one key and the ID of another: use the ID %q for the key with this name, or "+
			"the name %q for the key with this ID", nameOrID, byName.UID, byID.Name)
	case byName != nil:
		return byName, nil
	case byID != nil:
		return byID, nil
	default:
		return nil, fmt.Errorf("no APIKey in namespace %q has the name or ID %q: list both with 'kubectl apikey list -o wide'",
			s.namespace, nameOrID)
	}
}

// findByName returns the key with this name, or nil.
func (s *session) findByName(ctx context.Context, name string) (*v1alpha1.APIKey, error) {
	key := &v1alpha1.APIKey{}
	err := s.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, key)
	if apierrors.IsNotFound(err) && !isNotServed(err) {
		key, err = nil, nil
	}
	return key, err
}

// findByID returns the key with this ID, or nil.
func (s *session) findByID(ctx context.Context, id string) (*v1alpha1.APIKey, error) {
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
	key, err := s.findByName(ctx, name)
	if err != nil || key == nil || key.UID != types.UID(id) { // another key has the name now
		return nil, err
	}
	return key, nil
}

// eachMetadata lists only the metadata of the keys of the namespace.
func (s *session) eachMetadata(ctx context.Context, do func(*metav1.PartialObjectMetadata)) error {
	return each(ctx, s, s.namespace, func() client.ObjectList {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(keyKind.GroupVersion().WithKind(keyKind.Kind + "List"))
		return list
	}, do)
}

// each calls do for the objects of a list, which it reads page by page.
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

// completeNames completes the names of keys.
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

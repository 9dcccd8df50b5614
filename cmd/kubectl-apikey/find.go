// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

var keyKind = v1alpha1.GroupVersion.WithKind("APIKey")

// keyArgument describes an argument that names a key.
const keyArgument = "NAME|ID|APP_NAME"

// exactlyOneKey is the positional argument of a command for one key.
func exactlyOneKey(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("exactly one NAME, ID or APP_NAME is required; quote an app name with spaces")
	}
	return nil
}

// someKeys are the positional arguments of a command for keys.
func someKeys(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("at least one NAME, ID or APP_NAME is required; quote an app name with spaces")
	}
	return nil
}

// find returns the keys of the namespace that the arguments name, each once, and an error for each argument that names no key or several.
func (s *session) find(ctx context.Context, args ...string) ([]*v1alpha1.APIKey, error) {
	var all []*v1alpha1.APIKey
	if slices.ContainsFunc(args, func(arg string) bool { return objectName(arg) == "" }) {
		var err error
		if all, err = s.keys(ctx, selectOptions{chunkSize: defaultChunkSize}); err != nil {
			return nil, err
		}
	}
	var found []*v1alpha1.APIKey
	var errs []error
	for _, arg := range args {
		key, err := s.findIn(ctx, all, arg)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !slices.ContainsFunc(found, func(other *v1alpha1.APIKey) bool { return other.UID == key.UID }):
			found = append(found, key)
		}
	}
	return found, errors.Join(errs...)
}

// findIn returns the key that an argument names. It refuses an argument that fits several keys: a user who may create keys could choose
// the ID or the app name of another key as the name of one.
func (s *session) findIn(ctx context.Context, all []*v1alpha1.APIKey, arg string) (*v1alpha1.APIKey, error) {
	if name := objectName(arg); name != "" {
		return s.get(ctx, name)
	}
	matches := matchesOf(all, arg)
	switch len(matches) {
	case 0:
		return nil, errNoMatch(s.namespace, all, arg)
	case 1:
		return matches[0].key, nil
	default:
		forms := make([]string, len(matches))
		for i, match := range matches {
			forms[i] = fmt.Sprintf("apikey/%s (by its %s)", match.key.Name, match.by)
		}
		return nil, fmt.Errorf("%q fits several keys: use %s", arg, strings.Join(forms, " or "))
	}
}

func errNoMatch(namespace string, all []*v1alpha1.APIKey, arg string) error {
	if slices.ContainsFunc(all, func(key *v1alpha1.APIKey) bool { return hasAppName(key, arg) }) {
		return fmt.Errorf("all keys with the app name %q have ended: use the name or ID of one, which 'kubectl apikey list -o wide' prints", arg)
	}
	return fmt.Errorf("no APIKey in namespace %q has the name, ID or app name %q: list the keys with 'kubectl apikey list -o wide'",
		namespace, arg)
}

// objectName returns the name in an argument of kubectl's form TYPE/NAME, or "".
func objectName(arg string) string {
	kind, name, _ := strings.Cut(arg, "/")
	resource, group, _ := strings.Cut(strings.ToLower(kind), ".")
	if !slices.Contains([]string{"apikey", "apikeys", "ak"}, resource) ||
		!slices.Contains([]string{"", v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version + "." + v1alpha1.GroupVersion.Group}, group) {
		return ""
	}
	return name
}

// get returns the key with this name.
func (s *session) get(ctx context.Context, name string) (*v1alpha1.APIKey, error) {
	key := &v1alpha1.APIKey{}
	err := s.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, key)
	if apierrors.IsNotFound(err) && !isNotServed(err) {
		err = fmt.Errorf("no APIKey in namespace %q has the name %q", s.namespace, name)
	}
	return key, err
}

// match is a key that an argument fits, and by what.
type match struct {
	key *v1alpha1.APIKey
	by  string
}

// matchesOf returns the keys with this name, ID or app name, each once.
func matchesOf(all []*v1alpha1.APIKey, arg string) []match {
	var matches []match
	add := func(key *v1alpha1.APIKey, by string) {
		if !slices.ContainsFunc(matches, func(m match) bool { return m.key.UID == key.UID }) {
			matches = append(matches, match{key, by})
		}
	}
	for _, key := range all {
		if key.Name == arg {
			add(key, "name")
		}
	}
	for _, key := range all {
		if key.UID == types.UID(arg) {
			add(key, "ID")
		}
	}
	for _, key := range ofAppName(all, arg) {
		add(key, "app name")
	}
	return matches
}

// ofAppName returns the issued key with this app name, or if there is none, the keys that wait for the app name. Keys that have ended are
// left out.
func ofAppName(all []*v1alpha1.APIKey, appName string) []*v1alpha1.APIKey {
	var waiting []*v1alpha1.APIKey
	for _, key := range all {
		if apikey.IsRetired(key) || !hasAppName(key, appName) {
			continue
		}
		if apikey.IsIssued(key) {
			return []*v1alpha1.APIKey{key}
		}
		waiting = append(waiting, key)
	}
	return waiting
}

func hasAppName(key *v1alpha1.APIKey, appName string) bool {
	return apikey.CanonicalAppName(key.Spec.AppName) == apikey.CanonicalAppName(appName)
}

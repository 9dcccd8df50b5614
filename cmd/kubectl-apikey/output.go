// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// accessOf is "read", "write" or "read, write".
func accessOf(key *v1alpha1.APIKey) string {
	var words []string
	if key.Spec.ReadAccess {
		words = append(words, "read")
	}
	if key.Spec.WriteAccess {
		words = append(words, "write")
	}
	return strings.Join(words, ", ")
}

// timestamp is how a time is printed: in UTC, as RFC 3339 has it.
func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// printFacts prints a headline and, below it, what there is to know of a key.
func printFacts(out io.Writer, headline string, key *v1alpha1.APIKey, more ...[2]string) error {
	facts := [][2]string{
		{"App Name", key.Spec.AppName},
		{"ID", string(key.UID)},
		{"Name", key.Name},
		{"Access", accessOf(key)},
		{"Created At", timestamp(key.CreationTimestamp.Time)},
	}
	if key.Spec.ExpiresAt != nil {
		facts = append(facts, [2]string{"Expires At", timestamp(key.Spec.ExpiresAt.Time)})
	}
	var text strings.Builder
	text.WriteString(headline + "\n")
	for _, fact := range append(facts, more...) {
		fmt.Fprintf(&text, "  %-11s %s\n", fact[0]+":", fact[1])
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// objectOf returns the key as the printers of kubectl take it.
func objectOf(key *v1alpha1.APIKey) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(key)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{Object: content}
	object.SetGroupVersionKind(keyKind)
	return object, nil
}

// listOf returns the keys as kubectl lists objects.
func listOf(keys []*v1alpha1.APIKey) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	for _, key := range keys {
		object, err := objectOf(key)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, *object)
	}
	return list, nil
}

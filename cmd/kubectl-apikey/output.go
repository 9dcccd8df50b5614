// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	apiduration "k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// accessOf returns "read", "write" or "read, write".
func accessOf(key *v1alpha1.APIKey) string {
	var access []string
	if key.Spec.ReadAccess {
		access = append(access, "read")
	}
	if key.Spec.WriteAccess {
		access = append(access, "write")
	}
	return strings.Join(access, ", ")
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// age returns how long ago a time was, as in the tables of kubectl. The clock that recorded it may be ahead.
func age(at *metav1.Time, now time.Time) string {
	if at == nil {
		return none
	}
	return apiduration.HumanDuration(max(0, now.Sub(at.Time)))
}

// lastUse returns the time of the last use on record, and how long ago it was.
func lastUse(at *metav1.Time, now time.Time) string {
	if at == nil {
		return none
	}
	return fmt.Sprintf("%s (%s ago)", timestamp(at.Time), age(at, now))
}

// printDetails prints a headline, the details of a key, and more details.
func printDetails(out io.Writer, headline string, key *v1alpha1.APIKey, more ...[2]string) error {
	details := [][2]string{
		{"App Name", key.Spec.AppName},
		{"ID", string(key.UID)},
		{"Name", key.Name},
		{"Access", accessOf(key)},
		{"Created At", timestamp(key.CreationTimestamp.Time)},
	}
	if key.Spec.ExpiresAt != nil {
		details = append(details, [2]string{"Expires At", timestamp(key.Spec.ExpiresAt.Time)})
	}
	var text strings.Builder
	text.WriteString(headline + "\n")
	for _, detail := range append(details, more...) {
		fmt.Fprintf(&text, "  %-11s %s\n", detail[0]+":", detail[1])
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// toUnstructured returns a key in the form that the printers of kubectl need.
func toUnstructured(key *v1alpha1.APIKey) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(key)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{Object: content}
	object.SetGroupVersionKind(keyKind)
	return object, nil
}

// toManifest returns a key as users apply it, without a status.
func toManifest(key *v1alpha1.APIKey) (*unstructured.Unstructured, error) {
	object, err := toUnstructured(key)
	if err != nil {
		return nil, err
	}
	unstructured.RemoveNestedField(object.Object, "status")
	unstructured.RemoveNestedField(object.Object, "metadata", "creationTimestamp")
	return object, nil
}

// toList returns keys, each converted by toUnstructured or toManifest, as a List, as kubectl prints several objects.
func toList(
	keys []*v1alpha1.APIKey, convert func(*v1alpha1.APIKey) (*unstructured.Unstructured, error),
) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{Object: map[string]any{
		"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""},
	}}
	for _, key := range keys {
		object, err := convert(key)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, *object)
	}
	return list, nil
}

// printedKey is a key that a command prints in a format of kubectl, with its token, unless that is empty.
type printedKey struct {
	key           *v1alpha1.APIKey
	token         string
	kindWithToken string
}

func (p printedKey) print(printer printers.ResourcePrinter, out io.Writer) error {
	object, err := toUnstructured(p.key)
	if err != nil {
		return err
	}
	if p.token != "" {
		object.SetKind(p.kindWithToken)
		object.Object["token"] = p.token
	}
	return printer.PrintObj(object, out)
}

var errTokenNotPrinted = errors.New("this --output does not print the token: choose one that does, such as jsonpath={.token}")

// checkTokenIsPrinted prints a sample key, and returns an error if the output does not contain its token.
func checkTokenIsPrinted(flags *genericclioptions.PrintFlags, sample printedKey) error {
	printer, err := flags.ToPrinter() // another one, because a YAML printer writes a separator before its second object
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := sample.print(printer, &text); err != nil {
		return err
	}
	if !strings.Contains(text.String(), sample.token) {
		return errTokenNotPrinted
	}
	return nil
}

// checkNotClosed returns an error if out was closed when the process started. The Go runtime has then opened /dev/null in its place, and
// each write succeeds. It opens it for reading too, unlike a shell for a user who discards the output.
func checkNotClosed(out io.Writer) error {
	file, isFile := out.(*os.File)
	if !isFile || !isNull(file) {
		return nil
	}
	if _, err := file.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		return errors.New("the standard output is closed, and the token would be lost: write it to a file that only you can read")
	}
	return nil
}

// isNull reports whether a file is /dev/null.
func isNull(file *os.File) bool {
	opened, err := file.Stat()
	null, nullErr := os.Stat(os.DevNull)
	return err == nil && nullErr == nil && os.SameFile(opened, null)
}

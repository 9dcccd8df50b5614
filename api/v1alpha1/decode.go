// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	stdjson "encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
)

// UnmarshalJSON decodes an APIKey as the other types of the Kubernetes API are decoded. But a field whose value is not of its type is left
// out, and listed in Unreadable. The schema admits no such value; one that was stored past the schema would otherwise keep clients from
// reading all keys, since a list is decoded as a whole.
func (k *APIKey) UnmarshalJSON(data []byte) error {
	type plain APIKey // without this method
	k.Unreadable = nil
	if err := json.UnmarshalCaseSensitivePreserveInts(data, (*plain)(k)); err == nil {
		return nil
	}
	*k = APIKey{}
	var fields map[string]stdjson.RawMessage
	if err := json.UnmarshalCaseSensitivePreserveInts(data, &fields); err != nil {
		return fmt.Errorf("an APIKey must be a JSON object: %w", err)
	}
	k.Unreadable = decodeFields(fields, reflect.ValueOf((*plain)(k)).Elem(), "")
	k.supersedeUnreadable()
	return nil
}

// CannotRead says whether anything of these fields, each a path such as "spec.active", could not be read.
func (k *APIKey) CannotRead(fields ...string) bool {
	for _, unreadable := range k.Unreadable {
		for _, field := range fields {
			if isPartOf(unreadable, field) || isPartOf(field, unreadable) {
				return true
			}
		}
	}
	return false
}

func isPartOf(inner, outer string) bool {
	rest, ok := strings.CutPrefix(inner, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// supersedeUnreadable makes tokens end that may have an end which cannot be read.
func (k *APIKey) supersedeUnreadable() {
	for i := range k.Status.Tokens {
		if slices.Contains(k.Unreadable, fmt.Sprintf("status.tokens[%d].notAfter", i)) {
			k.Status.Tokens[i].NotAfter = &metav1.Time{}
		}
	}
}

var unmarshaler = reflect.TypeFor[stdjson.Unmarshaler]()

// decodeReadable decodes a value as far as it can be read, and returns the paths of what it left out. The path is that of the value.
func decodeReadable(data stdjson.RawMessage, value reflect.Value, path string) (unreadable []string) {
	if json.UnmarshalCaseSensitivePreserveInts(data, value.Addr().Interface()) == nil {
		return nil
	}
	value.SetZero()
	if value.Addr().Type().Implements(unmarshaler) {
		return []string{path}
	}
	switch value.Kind() {
	case reflect.Pointer:
		pointed := reflect.New(value.Type().Elem())
		unreadable = decodeReadable(data, pointed.Elem(), path)
		if unreadable[0] != path {
			value.Set(pointed)
		}
		return unreadable
	case reflect.Struct:
		var fields map[string]stdjson.RawMessage
		if json.UnmarshalCaseSensitivePreserveInts(data, &fields) == nil {
			return decodeFields(fields, value, path+".")
		}
	case reflect.Slice:
		var elements []stdjson.RawMessage
		if json.UnmarshalCaseSensitivePreserveInts(data, &elements) == nil {
			value.Set(reflect.MakeSlice(value.Type(), len(elements), len(elements)))
			for i, element := range elements {
				unreadable = append(unreadable, decodeReadable(element, value.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
			}
			return unreadable
		}
	}
	return []string{path}
}

// decodeFields decodes the fields of a struct as far as they can be read. The prefix is what their paths begin with.
func decodeFields(fields map[string]stdjson.RawMessage, value reflect.Value, prefix string) (unreadable []string) {
	for i := range value.NumField() {
		name, options, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		if name == "" && options == "inline" {
			unreadable = append(unreadable, decodeFields(fields, value.Field(i), prefix)...)
		} else if data, ok := fields[name]; ok && name != "-" {
			unreadable = append(unreadable, decodeReadable(data, value.Field(i), prefix+name)...)
		}
	}
	return unreadable
}

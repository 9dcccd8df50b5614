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

// UnmarshalJSON decodes an APIKey like any other type of the Kubernetes API. But it skips a field whose value has the wrong type, and lists
// the path of the field in Unreadable. The schema rejects such values, but etcd may hold one that was stored before the schema changed.
// Clients decode a list as a whole: without this method, one such key would make every list fail.
func (k *APIKey) UnmarshalJSON(data []byte) error {
	type plain APIKey // has no UnmarshalJSON
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
	k.endUnreadableTokens()
	return nil
}

// IsUnreadable reports whether any of the fields, or a part of one, is in Unreadable. A field is a path such as "spec.active".
func (k *APIKey) IsUnreadable(fields ...string) bool {
	for _, unreadable := range k.Unreadable {
		for _, field := range fields {
			if contains(field, unreadable) || contains(unreadable, field) {
				return true
			}
		}
	}
	return false
}

// contains reports whether the path outer is inner or one of its parents.
func contains(outer, inner string) bool {
	rest, ok := strings.CutPrefix(inner, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// endUnreadableTokens ends the tokens whose notAfter is unreadable, because it may have passed.
func (k *APIKey) endUnreadableTokens() {
	for i := range k.Status.Tokens {
		if slices.Contains(k.Unreadable, fmt.Sprintf("status.tokens[%d].notAfter", i)) {
			k.Status.Tokens[i].NotAfter = &metav1.Time{}
		}
	}
}

var unmarshaler = reflect.TypeFor[stdjson.Unmarshaler]()

// decodeValue decodes data into the value at the path, skips what has the wrong type, and returns the paths that it skipped.
func decodeValue(data stdjson.RawMessage, value reflect.Value, path string) (unreadable []string) {
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
		unreadable = decodeValue(data, pointed.Elem(), path)
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
				unreadable = append(unreadable, decodeValue(element, value.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
			}
			return unreadable
		}
	}
	return []string{path}
}

// decodeFields does the same for the fields of a struct. The paths of the fields start with the prefix.
func decodeFields(fields map[string]stdjson.RawMessage, value reflect.Value, prefix string) (unreadable []string) {
	for i := range value.NumField() {
		name, options, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		if name == "" && options == "inline" {
			unreadable = append(unreadable, decodeFields(fields, value.Field(i), prefix)...)
		} else if data, ok := fields[name]; ok && name != "-" {
			unreadable = append(unreadable, decodeValue(data, value.Field(i), prefix+name)...)
		}
	}
	return unreadable
}

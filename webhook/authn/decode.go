// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// client-go's decoders read each object several times to learn its type. A list of many keys would take longer to decode than the API
// server takes to write it, so this file decodes the responses itself.

// partialAPIKey is an APIKey without its maps, managedFields and conditions. These are most of its bytes, and no check reads them. It is
// a separate type because APIKey.UnmarshalJSON decodes all fields.
type partialAPIKey v1alpha1.APIKey

// decoding accepts all that the Kubernetes API may send, without the checks for what it never sends. It skips the fields that a
// partialAPIKey leaves out.
var decoding = json.JoinOptions(
	jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true),
	json.WithUnmarshalers(json.JoinUnmarshalers(
		json.UnmarshalFromFunc(skip[[]metav1.ManagedFieldsEntry]),
		json.UnmarshalFromFunc(skip[map[string]string]),
		json.UnmarshalFromFunc(skip[[]metav1.Condition]),
	)),
)

func skip[T any](decoder *jsontext.Decoder, _ *T) error { return decoder.SkipValue() }

// decodeKey decodes an object. If a field has the wrong type, v1alpha1 decodes the object, and leaves out that field alone.
func decodeKey(object jsontext.Value) (*v1alpha1.APIKey, error) {
	partial := &partialAPIKey{}
	if json.Unmarshal(object, partial, decoding) == nil {
		return (*v1alpha1.APIKey)(partial), nil
	}
	key := &v1alpha1.APIKey{}
	if err := key.UnmarshalJSON(object); err != nil {
		return nil, err
	}
	return key, nil
}

// keyList is a page of a list of APIKeys, or the whole list.
type keyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	// Items are parsed as they are decoded, so that the objects are never all in memory. They lie in one slice: single ones would
	// lie between the entries, which stay, and leave the heap full of holes.
	Items []parsedKey `json:"items"`
}

// DecodeList decodes the response to a list, or to a page of one. Its items are what a Keyring takes in Replace. The error does not repeat
// the response.
func DecodeList(page io.Reader) (runtime.Object, error) { return decodeList(page) }

// decodeList decodes a page of a list.
func decodeList(page io.Reader) (*keyList, error) {
	list := &keyList{}
	if err := json.UnmarshalRead(page, list, decoding); err != nil {
		return nil, fmt.Errorf("unable to decode a list of APIKeys: %w", err)
	}
	if list.Kind != "APIKeyList" { // any JSON object would decode as an empty list
		return nil, fmt.Errorf("the response to a list of APIKeys must have the kind APIKeyList, not %q", list.Kind)
	}
	return list, nil
}

// UnmarshalJSONFrom decodes and parses an item of a list.
func (p *parsedKey) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	object, err := decoder.ReadValue()
	if err != nil {
		return err
	}
	key, err := decodeKey(object)
	if err != nil {
		return err
	}
	*p = newParsedKey(key)
	return nil
}

// DeepCopyObject returns the list itself, which does not change any more. A Reflector takes only a runtime.Object.
func (l *keyList) DeepCopyObject() runtime.Object { return l }

// newWatch returns the events of the response to a watch.
func newWatch(ctx context.Context, response io.ReadCloser) watch.Interface {
	return watch.NewStreamWatcherWithLogger(klog.FromContext(ctx), NewEventDecoder(response),
		apierrors.NewClientErrorReporter(500, "GET", "ClientWatchDecoding"))
}

// NewEventDecoder returns a decoder of the response to a watch. Its objects are APIKeys with the fields that a Keyring reads, or a Status.
func NewEventDecoder(response io.ReadCloser) watch.Decoder {
	return &eventDecoder{response: response, decoder: jsontext.NewDecoder(response, decoding)}
}

// eventDecoder decodes the events of a watch.
type eventDecoder struct {
	response io.ReadCloser
	decoder  *jsontext.Decoder
	event    struct {
		Type   watch.EventType `json:"type"`
		Object jsontext.Value  `json:"object"` // the next event overwrites its bytes
	}
}

// Decode waits for the next event, and decodes it.
func (d *eventDecoder) Decode() (watch.EventType, runtime.Object, error) {
	if err := json.UnmarshalDecode(d.decoder, &d.event); err != nil {
		if cause := errors.Unwrap(err); cause != nil { // the watcher expects io.EOF itself
			err = cause
		}
		return "", nil, err
	}
	if d.event.Type == watch.Error {
		status := &metav1.Status{}
		return d.event.Type, status, json.Unmarshal(d.event.Object, status, decoding)
	}
	key, err := decodeKey(d.event.Object)
	return d.event.Type, key, err
}

// Close ends the watch.
func (d *eventDecoder) Close() { _ = d.response.Close() }

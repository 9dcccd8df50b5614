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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// What the Kubernetes API tells of APIKeys is decoded here, from the bytes as they come. The decoders of client-go read each object
// several times over, to learn what it is: of many objects that takes longer than the API server takes to write them.

// An object that cannot be decoded here, because a field is not of its type, is left to v1alpha1: only the field is left out.

// lenient takes what the Kubernetes API may say, and spares the search for what it does not.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// readPage adds the keys of a page, and closes it.
func (l *wireList) readPage(page io.ReadCloser) error {
	defer func() { _ = page.Close() }() // it was read
	l.TypeMeta, l.ListMeta = metav1.TypeMeta{}, metav1.ListMeta{}
	if err := json.UnmarshalRead(page, l, lenient); err != nil {
		return fmt.Errorf("unable to decode a list of APIKeys: %w", err)
	}
	if l.Kind != "APIKeyList" { // without it, anything would be an empty list
		return fmt.Errorf("the answer to a list of APIKeys is none, but of the kind %q", l.Kind)
	}
	return nil
}

// newWatch returns the events of a watch.
func newWatch(ctx context.Context, answer io.ReadCloser) watch.Interface {
	return watch.NewStreamWatcherWithLogger(klog.FromContext(ctx), &wireEvents{answer: answer, decoder: jsontext.NewDecoder(answer, lenient)},
		apierrors.NewClientErrorReporter(500, "GET", "ClientWatchDecoding"))
}

// wireEvents are the events of a watch.
type wireEvents struct {
	answer  io.ReadCloser
	decoder *jsontext.Decoder
	event   struct {
		Type   watch.EventType `json:"type"`
		Object jsontext.Value  `json:"object"` // its bytes are those of the next event, too
	}
}

// Decode waits for the next event.
func (e *wireEvents) Decode() (watch.EventType, runtime.Object, error) {
	if err := json.UnmarshalDecode(e.decoder, &e.event); err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return "", nil, err
	}
	if e.event.Type == watch.Error {
		status := &metav1.Status{}
		return e.event.Type, status, json.Unmarshal(e.event.Object, status, lenient)
	}
	key, err := decodeKey(e.event.Object)
	return e.event.Type, key, err
}

// Close ends the watch.
func (e *wireEvents) Close() { _ = e.answer.Close() }

// wireKey is an APIKey of which only the fields that count here are decoded: most of an object's bytes are managedFields.
type wireKey struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        wireMetadata `json:"metadata"`
	Spec            wireSpec     `json:"spec"`
	Status          wireStatus   `json:"status"`

	// whole is the object if it has fields that cannot be read, else nil.
	whole *v1alpha1.APIKey
}

func decodeKey(object jsontext.Value) (*wireKey, error) {
	key := &wireKey{}
	if json.Unmarshal(object, key, lenient) == nil {
		return key, nil
	}
	whole := &v1alpha1.APIKey{}
	if err := whole.UnmarshalJSON(object); err != nil {
		return nil, err
	}
	klog.Background().Error(nil, "Leaving out fields of an APIKey that cannot be read: they grant nothing, and an end is taken for past",
		"apikey", klog.KObj(whole), "uid", whole.UID, "fields", whole.Unreadable)
	return &wireKey{whole: whole}, nil
}

type wireMetadata struct {
	Namespace         string       `json:"namespace"`
	Name              string       `json:"name"`
	UID               types.UID    `json:"uid"`
	ResourceVersion   string       `json:"resourceVersion"`
	DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
}

type wireSpec struct {
	AppName     string       `json:"appName"`
	ReadAccess  bool         `json:"readAccess"`
	WriteAccess bool         `json:"writeAccess"`
	Active      *bool        `json:"active"`
	ExpiresAt   *metav1.Time `json:"expiresAt"`
}

type wireStatus struct {
	Tokens []struct {
		Hash      string       `json:"hash"`
		NotBefore *metav1.Time `json:"notBefore"`
		NotAfter  *metav1.Time `json:"notAfter"`
	} `json:"tokens"`
	DeactivatedAt *metav1.Time `json:"deactivatedAt"`
}

// wireList is a list of APIKeys, of which the records are kept alone.
type wireList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           wireItems `json:"items"`
}

// wireItems are one behind the other in memory: single ones would lie between what is kept of them, and leave it full of holes.
type wireItems []record

// UnmarshalJSONFrom makes a record of each key as it comes.
func (i *wireItems) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	if begin, err := decoder.ReadToken(); err != nil || begin.Kind() == 'n' { // null
		return err
	} else if begin.Kind() != '[' {
		return fmt.Errorf("the items are no array, but begin with %s", begin)
	}
	for decoder.PeekKind() != ']' {
		object, err := decoder.ReadValue()
		if err != nil {
			return err
		}
		key, err := decodeKey(object)
		if err != nil {
			return err
		}
		*i = append(*i, newRecord(key.apiKey()))
	}
	_, err := decoder.ReadToken()
	return err
}

// apiKey returns the decoded fields as what they are decoded from.
func (w *wireKey) apiKey() *v1alpha1.APIKey {
	if w.whole != nil {
		return w.whole
	}
	object := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         w.Metadata.Namespace,
			Name:              w.Metadata.Name,
			UID:               w.Metadata.UID,
			DeletionTimestamp: w.Metadata.DeletionTimestamp,
		},
		Spec: v1alpha1.APIKeySpec{
			AppName:     w.Spec.AppName,
			ReadAccess:  w.Spec.ReadAccess,
			WriteAccess: w.Spec.WriteAccess,
			Active:      w.Spec.Active,
			ExpiresAt:   w.Spec.ExpiresAt,
		},
		Status: v1alpha1.APIKeyStatus{
			DeactivatedAt: w.Status.DeactivatedAt,
		},
	}
	for _, recorded := range w.Status.Tokens {
		object.Status.Tokens = append(object.Status.Tokens, v1alpha1.TokenRecord{
			Hash:      recorded.Hash,
			NotBefore: recorded.NotBefore,
			NotAfter:  recorded.NotAfter,
		})
	}
	return object
}

// GetObjectMeta returns what a Reflector needs to know of an object.
func (w *wireKey) GetObjectMeta() metav1.Object {
	if w.whole != nil {
		return w.whole
	}
	return &metav1.ObjectMeta{Namespace: w.Metadata.Namespace, Name: w.Metadata.Name, ResourceVersion: w.Metadata.ResourceVersion}
}

// DeepCopyObject returns a shallow copy: nobody changes what was decoded.
func (w *wireKey) DeepCopyObject() runtime.Object {
	copied := *w
	return &copied
}

// DeepCopyObject returns a shallow copy: nobody changes what was decoded.
func (l *wireList) DeepCopyObject() runtime.Object {
	copied := *l
	return &copied
}

// DeepCopyObject returns the record, which nobody changes.
func (r *record) DeepCopyObject() runtime.Object { return r }

// GetObjectKind returns none. It makes a record what a Reflector takes for an object of a list.
func (r *record) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

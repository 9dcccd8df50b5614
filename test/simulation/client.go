// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// liveClient sends the requests of a process to the API server. A method that the code under test does not call is not implemented: its
// call panics.
type liveClient struct {
	client.WithWatch
	*process
	// send sends a request, and waits for the response.
	send func(context.Context, *call) error
}

// Get reads an object from the API server.
func (c *liveClient) Get(ctx context.Context, name client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	switch object := object.(type) {
	case *v1alpha1.APIKey:
		return request(ctx, c, object, func() string { return "reads key " + name.String() }, func() (*v1alpha1.APIKey, error) {
			return found(c.server.keys, keyResource, name)
		})
	case *corev1.Secret:
		return request(ctx, c, object, func() string { return "reads Secret " + name.String() }, func() (*corev1.Secret, error) {
			return found(c.server.secrets, secretResource, name)
		})
	default:
		panic(fmt.Sprintf("the simulation has no %T", object))
	}
}

func found[T any](objects map[types.NamespacedName]*T, resource schema.GroupResource, name types.NamespacedName) (*T, error) {
	if objects[name] == nil {
		return nil, apierrors.NewNotFound(resource, name.Name)
	}
	return objects[name], nil
}

// Create creates an object.
func (c *liveClient) Create(ctx context.Context, object client.Object, _ ...client.CreateOption) error {
	switch object := object.(type) {
	case *v1alpha1.APIKey:
		sent := object.DeepCopy()
		return request(ctx, c, object, func() string { return "creates " + c.describeSpec(sent) }, func() (*v1alpha1.APIKey, error) {
			return c.server.createKey(c.process, sent)
		})
	case *corev1.Secret:
		sent := object.DeepCopy()
		c.registerMinted(c.process, sent)
		return request(ctx, c, object, func() string { return "creates " + c.describeSecret(sent) }, func() (*corev1.Secret, error) {
			return c.server.createSecret(c.process, sent)
		})
	default:
		panic(fmt.Sprintf("the simulation has no %T", object))
	}
}

// Update replaces an object.
func (c *liveClient) Update(ctx context.Context, object client.Object, _ ...client.UpdateOption) error {
	switch object := object.(type) {
	case *v1alpha1.APIKey:
		sent := object.DeepCopy()
		return request(ctx, c, object, func() string { return "updates " + c.describeSpec(sent) }, func() (*v1alpha1.APIKey, error) {
			return c.server.updateSpec(c.process, sent)
		})
	case *corev1.Secret:
		sent := object.DeepCopy()
		c.registerMinted(c.process, sent)
		return request(ctx, c, object, func() string { return "updates " + c.describeSecret(sent) }, func() (*corev1.Secret, error) {
			return c.server.updateSecret(c.process, sent)
		})
	default:
		panic(fmt.Sprintf("the simulation has no %T", object))
	}
}

// Patch changes a key. The patch must have the resourceVersion, so that it has the same effect as an update.
func (c *liveClient) Patch(ctx context.Context, object client.Object, _ client.Patch, _ ...client.PatchOption) error {
	key := object.(*v1alpha1.APIKey)
	sent := key.DeepCopy()
	return request(ctx, c, key, func() string { return "patches " + c.describeSpec(sent) }, func() (*v1alpha1.APIKey, error) {
		return c.server.updateSpec(c.process, sent)
	})
}

// Delete deletes an object.
func (c *liveClient) Delete(ctx context.Context, object client.Object, options ...client.DeleteOption) error {
	o := (&client.DeleteOptions{}).ApplyOptions(options)
	name := client.ObjectKeyFromObject(object)
	switch object := object.(type) {
	case *v1alpha1.APIKey:
		return request(ctx, c, object, func() string { return "deletes key " + name.String() }, func() (*v1alpha1.APIKey, error) {
			return nil, c.server.deleteKey(c.process, name, o.Preconditions, ptr.Deref(o.PropagationPolicy, metav1.DeletePropagationBackground))
		})
	case *corev1.Secret:
		sent := object.DeepCopy()
		return request(ctx, c, object, func() string { return "deletes " + c.describeSecret(sent) }, func() (*corev1.Secret, error) {
			return nil, c.server.deleteSecret(c.process, name, o.Preconditions)
		})
	default:
		panic(fmt.Sprintf("the simulation has no %T", object))
	}
}

// Status returns a writer of the status.
func (c *liveClient) Status() client.SubResourceWriter { return statusWriter{liveClient: c} }

type statusWriter struct {
	client.SubResourceWriter
	liveClient *liveClient
}

// Update writes the status.
func (w statusWriter) Update(ctx context.Context, object client.Object, _ ...client.SubResourceUpdateOption) error {
	c, key := w.liveClient, object.(*v1alpha1.APIKey)
	sent := key.DeepCopy()
	return request(ctx, c, key, func() string { return "writes the status of " + c.describeStatus(sent) }, func() (*v1alpha1.APIKey, error) {
		return c.server.updateStatus(c.process, sent)
	})
}

// request sends a request, and copies the response to the object. The function execute must not refer to the object, which its owner may
// change when the request has timed out and is still on its way.
func request[Object any, Pointer interface {
	*Object
	DeepCopyInto(*Object)
}](ctx context.Context, c *liveClient, object Pointer, name func() string, execute func() (Pointer, error)) error {
	var response Pointer
	err := c.send(ctx, &call{name: name, execute: func() (err error) {
		response, err = execute()
		return err
	}})
	if err == nil && response != nil {
		response.DeepCopyInto(object)
	}
	return err
}

// cachedClient reads keys from the cache of a controller, and writes like a liveClient. The cache contains the controller's own writes, as
// with the option EnableReadYourWritesConsistency of controller-runtime.
type cachedClient struct {
	liveClient
	*cache
}

// Get reads a key from the cache. It waits until the cache has the last write of the key by this client.
func (c *cachedClient) Get(ctx context.Context, name client.ObjectKey, object client.Object, options ...client.GetOption) error {
	isConsistent := !(&client.GetOptions{}).ApplyOptions(options).DisableReadYourWritesConsistency
	for c.running != nil { // otherwise a handler of events reads
		if err := c.do(ctx, &call{execute: func() error { return nil }, isLocal: true, name: text("reads its cache")}); err != nil {
			return err
		}
		if !isConsistent || c.observed >= c.written[name] {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("failed to wait for cache to catch up: %w", ctx.Err())
		}
	}
	cached, err := found(c.keys, keyResource, name)
	if err == nil {
		cached.DeepCopyInto(object.(*v1alpha1.APIKey))
	}
	return err
}

// List lists the keys of the cache that match the index. The code under test demands neither copies nor consistency.
func (c *cachedClient) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(options)
	if o.UnsafeDisableDeepCopy == nil || !*o.UnsafeDisableDeepCopy || !o.DisableReadYourWritesConsistency {
		panic("the simulation of this list is missing")
	}
	keys, index := list.(*v1alpha1.APIKeyList), o.FieldSelector.Requirements()[0]
	keys.Items = nil
	for _, name := range c.inSomeOrder(sortedNames(c.keys)) {
		if key := c.keys[name]; key.Namespace == o.Namespace && c.matches(key, index.Field, index.Value) {
			keys.Items = append(keys.Items, *key)
		}
	}
	return nil
}

// Status returns a writer of the status that records the resourceVersion, which later reads wait for.
func (c *cachedClient) Status() client.SubResourceWriter {
	return recordingWriter{c.liveClient.Status(), c.cache}
}

type recordingWriter struct {
	client.SubResourceWriter
	*cache
}

// Update writes the status.
func (w recordingWriter) Update(ctx context.Context, object client.Object, options ...client.SubResourceUpdateOption) error {
	err := w.SubResourceWriter.Update(ctx, object, options...)
	if err == nil {
		w.written[client.ObjectKeyFromObject(object)] = revisionOf(object)
	}
	return err
}

func revisionOf(object metav1.Object) int64 {
	revision, _ := strconv.ParseInt(object.GetResourceVersion(), 10, 64)
	return revision
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"squirrel.dev/apikey-operator/api/v1alpha1"
)

// pageSize is how many keys are listed at a time: few enough for an API server to read them from etcd at once, and to write them in the
// minute after which it gives up.
const pageSize = 10_000

// Run fills the Keyring with the APIKeys of a namespace, or of all with [metav1.NamespaceAll], and keeps it up to date until ctx is
// done. It needs the right to list and watch them. Whatever goes wrong on the way is logged and tried again; an error is a config
// that cannot work.
func (k *Keyring) Run(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := newClient(config)
	if err != nil {
		return fmt.Errorf("cannot watch APIKeys: %w", err)
	}
	logger := klog.FromContext(ctx)
	cache.NewReflectorWithOptions(listFirst{k.feed(client, namespace)}, &wireKey{}, k, cache.ReflectorOptions{
		Name:            "keyring",
		TypeDescription: "APIKey",
		Logger:          &logger,
		Backoff:         reconnect(),
	}).RunWithContext(ctx)
	return nil
}

// feed lists and watches APIKeys, and notes how that goes.
func (k *Keyring) feed(client rest.Interface, namespace string) *cache.ListWatch {
	listed := false
	stream := func(ctx context.Context, options metav1.ListOptions) (io.ReadCloser, error) {
		return client.Get().Namespace(namespace).Resource("apikeys").VersionedParams(&options, metav1.ParameterCodec).Stream(ctx)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			list, err := listConsistently(ctx, stream)
			k.note(ctx, err)
			listed = true
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if listed { // what that took beyond what is kept of it, the runtime would keep for minutes
				debug.FreeOSMemory()
				listed = false
			}
			options.Watch = true
			answer, err := stream(ctx, options)
			k.note(ctx, err)
			if err != nil {
				return nil, err
			}
			return newWatch(ctx, answer), nil
		},
	}
}

// listFirst has a Reflector list before it watches. It would have the watch begin with all objects, which an API server takes twice as
// long to write; here a list is read as it comes, so that it takes no more memory.
type listFirst struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is what a Reflector asks for that.
func (listFirst) IsWatchListSemanticsUnSupported() bool { return true }

// listConsistently returns all keys as they are now, not as a Reflector asks for them first: at resourceVersion "0", which any API server
// may answer from a cache that lags. A restarted process would accept keys again that it had seen end. All pages are of the same instant;
// when the API server has forgotten it before the last one, all are asked for again.
func listConsistently(
	ctx context.Context, stream func(context.Context, metav1.ListOptions) (io.ReadCloser, error),
) (*wireList, error) {
	list := &wireList{}
	for {
		page, err := stream(ctx, metav1.ListOptions{Limit: pageSize, Continue: list.Continue})
		if err != nil {
			return nil, err
		}
		if err := list.readPage(page); err != nil {
			return nil, err
		}
		if list.Continue == "" {
			return list, nil
		}
	}
}

// note keeps the outcome of a call to the Kubernetes API for whoever asks what is wrong, and logs when it turns. A Reflector logs a
// refused connection only for developers. That a watch has to begin with a new list is nothing wrong.
func (k *Keyring) note(ctx context.Context, err error) {
	if err == nil || apierrors.IsResourceExpired(err) {
		if k.lastError.Swap(nil) != nil {
			klog.FromContext(ctx).Info("The Kubernetes API answers again")
		}
	} else if ctx.Err() == nil && k.lastError.Swap(&err) == nil {
		consequence := "keys cannot be checked until it does"
		if k.Synced() {
			consequence = "deciding from memory"
		}
		klog.FromContext(ctx).Error(err, "The Kubernetes API does not let APIKeys be watched: "+consequence+", and trying again")
	}
}

// problem returns what is wrong with the Kubernetes API, as far as the last call to it tells.
func (k *Keyring) problem() string {
	if err := k.lastError.Load(); err != nil {
		return (*err).Error()
	}
	return "none"
}

// reconnect returns the pauses between attempts: doubling from 0.2 s to 1 s, each stretched by up to as much again at random. They
// are short because a revoked key is accepted until the API is heard again.
func reconnect() *wait.Backoff {
	return &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Cap: time.Second, Steps: 10}
}

func newClient(config *rest.Config) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &v1alpha1.GroupVersion
	config.ContentConfig.ContentType = runtime.ContentTypeJSON
	// No limit here: the API server has its own, and a list of many pages must not take minutes.
	config.QPS = -1
	refusals := runtime.NewScheme() // all else is decoded in wire.go
	metav1.AddToGroupVersion(refusals, metav1.Unversioned)
	config.NegotiatedSerializer = serializer.NewCodecFactory(refusals).WithoutConversion()
	return rest.RESTClientFor(config)
}

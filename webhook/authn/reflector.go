// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
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
	"squirrel.dev/apikey-operator/internal/logging"
)

// pageSize is the limit of a list request, in keys. An API server can read so many from etcd with one request, and write them within its
// request timeout of a minute.
const pageSize = 10_000

// failureLines are logged at once, and then one a minute.
const failureLines = 3

// Run lists and watches the APIKeys of a namespace, or of all with [metav1.NamespaceAll], into the Keyring until ctx is done. It needs
// the right to list and watch them. It logs and retries all errors of the Kubernetes API, and returns an error only for a config that
// cannot work.
func (k *Keyring) Run(ctx context.Context, config *rest.Config, namespace string) error {
	client, err := newClient(config)
	if err != nil {
		return fmt.Errorf("cannot watch APIKeys: %w", err)
	}
	lists := listFirst{k.listWatch(client, namespace, klog.FromContext(ctx))}
	ctx = limitLog(ctx)
	cache.NewReflectorWithOptions(lists, &v1alpha1.APIKey{}, k, ReflectorOptions(ctx, "keyring")).RunWithContext(ctx)
	return nil
}

// limitLog returns a context whose logger limits repeated lines. A Reflector logs each error, forever in a namespace that was deleted.
func limitLog(ctx context.Context) context.Context {
	limited := logging.Limit(slog.New(logr.ToSlogHandler(klog.FromContext(ctx))), failureLines)
	return klog.NewContext(ctx, logr.FromSlogHandler(limited.Handler()))
}

// listWatch lists and watches APIKeys, and records whether the calls succeed.
func (k *Keyring) listWatch(client rest.Interface, namespace string, logger klog.Logger) *cache.ListWatch {
	observe := func(ctx context.Context, err error) { k.Observe(klog.NewContext(ctx, logger), err) }
	listed := false
	get := func(ctx context.Context, options metav1.ListOptions) (io.ReadCloser, error) {
		return client.Get().Namespace(namespace).Resource("apikeys").VersionedParams(&options, metav1.ParameterCodec).Stream(ctx)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			list, err := listAll(ctx, get)
			observe(ctx, err)
			listed = true
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if listed { // otherwise the runtime returns the memory of the list only after minutes
				debug.FreeOSMemory()
				listed = false
			}
			options.Watch = true
			response, err := get(ctx, options)
			observe(ctx, err)
			if err != nil {
				return nil, err
			}
			return newWatch(ctx, response), nil
		},
	}
}

// listFirst lets a Reflector list before it watches, instead of starting with a watch that sends all objects. The API server takes twice
// as long to write those, and the list needs no more memory, because it is decoded as it arrives.
type listFirst struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported makes the Reflector list.
func (listFirst) IsWatchListSemanticsUnSupported() bool { return true }

// listAll returns all keys in a consistent list. A Reflector would first list at resourceVersion "0", which an API server may answer from
// a cache that lags. A restarted process could then accept keys again that it had seen end. All pages are of one revision. If the API
// server compacts it before the last page, listAll returns an error, and the Reflector lists again.
func listAll(ctx context.Context, get func(context.Context, metav1.ListOptions) (io.ReadCloser, error)) (*keyList, error) {
	all := &keyList{}
	for {
		response, err := get(ctx, metav1.ListOptions{Limit: pageSize, Continue: all.Continue})
		if err != nil {
			return nil, err
		}
		page, err := decodeList(response)
		_ = response.Close() // it was read
		if err != nil {
			return nil, err
		}
		all.ListMeta, all.Items = page.ListMeta, append(all.Items, page.Items...)
		if all.Continue == "" {
			return all, nil
		}
	}
}

// Observe records the result of a list or watch, whose error Ready returns. A store that passes its events on to the Keyring must call it.
// Observe logs the first error and the first success after it, because a Reflector logs a refused connection only at a debug level. An
// expired resource version counts as success: the Reflector lists again.
func (k *Keyring) Observe(ctx context.Context, err error) {
	logger := klog.FromContext(ctx)
	if apierrors.IsForbidden(err) {
		k.refused.Store(true)
	}
	switch {
	case err == nil || apierrors.IsResourceExpired(err):
		k.refused.Store(false)
		if k.listWatchError.Swap(nil) != nil {
			logger.Info("APIKeys can be listed and watched again")
		}
	case ctx.Err() == nil && k.listWatchError.Swap(&err) == nil:
		if k.Synced() {
			logger.Error(err, "Unable to list or watch APIKeys, retrying: requests are decided from memory until it succeeds")
		} else {
			logger.Error(err, "Unable to list or watch APIKeys, retrying: no request can be decided until it succeeds")
		}
	}
}

// lastError returns the error of the last call to the Kubernetes API, or "none".
func (k *Keyring) lastError() string {
	if err := k.listWatchError.Load(); err != nil {
		return (*err).Error()
	}
	return "none"
}

// isRefused reports whether the process lacks the permission, also while the Kubernetes API is unreachable.
func (k *Keyring) isRefused() bool { return k.refused.Load() }

// ReflectorOptions returns the options of a Reflector that fills a Keyring, alone or together with another store. Its delays between
// attempts grow from 0.2 s, doubling to 1 s, each with up to 100 % of jitter. They are short because a revoked key is accepted until the
// watch delivers its end.
func ReflectorOptions(ctx context.Context, name string) cache.ReflectorOptions {
	logger := klog.FromContext(ctx)
	return cache.ReflectorOptions{
		Name:            name,
		TypeDescription: "APIKey",
		Logger:          &logger,
		Backoff:         &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Cap: time.Second, Steps: 10},
	}
}

func newClient(config *rest.Config) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &v1alpha1.GroupVersion
	config.ContentConfig.ContentType = runtime.ContentTypeJSON
	// No rate limit: the API server has its own, and a list of many pages must not take minutes.
	config.QPS = -1
	errorsOnly := runtime.NewScheme() // decode.go decodes all other responses
	metav1.AddToGroupVersion(errorsOnly, metav1.Unversioned)
	config.NegotiatedSerializer = serializer.NewCodecFactory(errorsOnly).WithoutConversion()
	return rest.RESTClientFor(config)
}

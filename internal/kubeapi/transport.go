// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// transport is the transport of one client.
type transport struct {
	next     http.RoundTripper
	timeouts Timeouts
	metrics  *Metrics
	log      *slog.Logger

	mutex       sync.Mutex
	collections map[string]*collection // by path and selectors
}

// WrappedRoundTripper implements [utilnet.RoundTripperWrapper].
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip implements [http.RoundTripper]. Response bodies have an idle timeout.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	query := request.URL.Query()
	switch {
	case request.Method != http.MethodGet:
		return t.call(request)
	case !isWatch(query):
		return t.call(consistentRead(request, query))
	case query.Get("allowWatchBookmarks") == "true":
		return t.watch(request, query)
	default: // without bookmarks a watch may be idle for as long as its caller allows
		return t.next.RoundTrip(request)
	}
}

func isWatch(query url.Values) bool { return query.Get("watch") == "true" || query.Get("watch") == "1" }

// call sends any request but a watch.
func (t *transport) call(request *http.Request) (*http.Response, error) {
	response, content, err := t.send(request, t.timeouts.CallIdle)
	if err != nil {
		return nil, err
	}
	response.Body = content
	return response, nil
}

// watch sends the watch request of a Reflector.
func (t *transport) watch(request *http.Request, query url.Values) (*http.Response, error) {
	watched := t.collectionOf(request, query)
	if sendsInitialEvents(query) {
		watched.listed()
		request = consistentRead(request, query)
	} else if response, err := t.rejectWatch(watched, request, query); response != nil || err != nil {
		return response, err
	}
	response, content, err := t.send(request, t.timeouts.WatchIdle)
	if err != nil {
		return nil, err
	}
	response.Body = content
	if response.StatusCode == http.StatusOK {
		response.Body = t.newWatchBody(request.Context(), content, watched)
	}
	return response, nil
}

// sendsInitialEvents reports whether a watch starts with all objects, instead of a list.
func sendsInitialEvents(query url.Values) bool { return query.Get("sendInitialEvents") == "true" }

// rejectWatch returns the response or error to a watch request that must not be sent: the Reflector must list first, or the API is
// unreachable. It returns nil for a request to send.
func (t *transport) rejectWatch(watched *collection, request *http.Request, query url.Values) (*http.Response, error) {
	if watched.mustList() {
		watched.listed()
		return expiredResponse(request, "a list must precede the watch"), nil
	}
	current, busy, err := t.currentRevision(request, query)
	switch {
	case busy != nil || request.Context().Err() != nil:
		return busy, err
	case err != nil:
		watched.unreachable()
		watched.log.Warn("The Kubernetes API cannot be watched: retrying", "resource", watched.resource, "err", err)
		return nil, asConnectionRefused(err)
	case isOlder(current, query.Get("resourceVersion")):
		watched.listed()
		t.metrics.restarted(reasonOlderRevision)
		t.log.Warn("The Kubernetes API has gone back to an older revision, as after a restore of etcd: listing all objects again. "+
			"Changes since the backup are lost: ended keys may be accepted again",
			"resource", watched.resource, "revision", current, "seen", query.Get("resourceVersion"))
		return expiredResponse(request, "the API server has gone back to the older revision "+current), nil
	}
	return nil, nil
}

// unreachableError is the error of a watch while a list would fail too. After most errors of a watch a Reflector lists, and all lists would
// start at once when the API is back. After a refused connection it watches again.
type unreachableError struct{ reason string }

func (e *unreachableError) Error() string { return e.reason }

// Unwrap returns the error by which a Reflector recognizes a refused connection.
func (*unreachableError) Unwrap() error { return syscall.ECONNREFUSED }

// asConnectionRefused returns an error after which a Reflector watches again.
func asConnectionRefused(err error) error {
	if utilnet.IsProbableEOF(err) { // client-go recognizes its text, and treats it as the normal end of a watch
		return &unreachableError{"the connection to the Kubernetes API broke"}
	}
	return &unreachableError{err.Error()}
}

// isOlder reports whether both revisions are valid and the current one is older.
func isOlder(current, seen string) bool {
	order, err := resourceversion.CompareResourceVersion(current, seen)
	return err == nil && order < 0
}

// currentRevision returns the current revision of a collection. If the API server is too busy, it returns the API server's response, which
// says when to retry.
func (t *transport) currentRevision(watch *http.Request, query url.Values) (current string, busy *http.Response, err error) {
	request := watch.Clone(watch.Context())
	limited := selectors(query)
	limited.Set("limit", "1")
	request.URL.RawQuery = limited.Encode()
	request.Header.Set("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json")
	response, err := t.call(request)
	if err != nil || response.StatusCode == http.StatusTooManyRequests {
		return "", response, err
	}
	defer response.Body.Close()
	var listOrStatus struct {
		Metadata metav1.ListMeta
		Message  string
	}
	err = json.NewDecoder(response.Body).Decode(&listOrStatus)
	switch {
	case response.StatusCode != http.StatusOK:
		return "", nil, fmt.Errorf("the Kubernetes API responded %s: %s", response.Status, listOrStatus.Message)
	case err != nil:
		return "", nil, fmt.Errorf("read the current revision of %s: %w", request.URL.Path, err)
	}
	return listOrStatus.Metadata.ResourceVersion, nil, nil
}

// consistentRead returns a request that reads the current state. Reflectors accept the state of an API server's cache, which may lag.
func consistentRead(request *http.Request, query url.Values) *http.Request {
	if !query.Has("resourceVersion") || query.Get("resourceVersionMatch") == string(metav1.ResourceVersionMatchExact) {
		return request
	}
	query.Del("resourceVersion")
	if !sendsInitialEvents(query) { // which requires it
		query.Del("resourceVersionMatch")
	}
	request = request.Clone(request.Context())
	request.URL.RawQuery = query.Encode()
	return request
}

// expiredResponse returns 410 Gone, after which a Reflector lists.
func expiredResponse(request *http.Request, reason string) *http.Response {
	status := apierrors.NewResourceExpired(reason).Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	content, _ := json.Marshal(status) // cannot fail
	return &http.Response{
		Status: "410 Gone", StatusCode: http.StatusGone, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(content)), ContentLength: int64(len(content)),
		Request: request,
	}
}

// send sends a request, and returns the response and its body. Both have the idle timeout.
func (t *transport) send(request *http.Request, idle time.Duration) (*http.Response, *body, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	timer := time.AfterFunc(idle, func() { cancel(fmt.Errorf("%w for %s", errIdle, idle)) })
	response, err := t.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		timer.Stop()
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, nil, err
	}
	timer.Reset(idle)
	return response, &body{content: response.Body, ctx: ctx, cancel: cancel, timer: timer, idle: idle}, nil
}

var errIdle = errors.New("the Kubernetes API has sent nothing")

// causeOf returns the cause of the context if it is done, and otherwise err.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

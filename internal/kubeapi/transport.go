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

// transport sends the calls of one client.
type transport struct {
	next    http.RoundTripper
	bounds  Bounds
	metrics *Metrics
	log     *slog.Logger

	mutex       sync.Mutex
	collections map[string]*collection // that a Reflector watches, by path and selectors
}

// WrappedRoundTripper returns what the calls are sent by.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip sends a call, and returns its answer with a body that fails when the API server is silent for too long.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	query := request.URL.Query()
	switch {
	case request.Method != http.MethodGet:
		return t.call(request)
	case !isWatch(query):
		return t.call(consistent(request, query))
	case query.Get("allowWatchBookmarks") == "true":
		return t.watch(request, query)
	default: // such a watch may be silent for long, and only its caller knows for how long
		return t.next.RoundTrip(request)
	}
}

func isWatch(query url.Values) bool { return query.Get("watch") == "true" || query.Get("watch") == "1" }

// call sends a call that is answered at once.
func (t *transport) call(request *http.Request) (*http.Response, error) {
	response, answer, err := t.send(request, t.bounds.CallSilence)
	if err != nil {
		return nil, err
	}
	response.Body = answer
	return response, nil
}

// watch sends the watch of a Reflector.
func (t *transport) watch(request *http.Request, query url.Values) (*http.Response, error) {
	watched := t.watched(request, query)
	if beginsWithList(query) {
		watched.lists()
		request = consistent(request, query)
	} else if answer, err := t.refusal(watched, request, query); answer != nil || err != nil {
		return answer, err
	}
	response, answer, err := t.send(request, t.bounds.WatchSilence)
	if err != nil {
		return nil, err
	}
	response.Body = answer
	if response.StatusCode == http.StatusOK {
		response.Body = t.newWatchBody(request.Context(), answer, watched)
	}
	return response, nil
}

// beginsWithList says whether a watch begins with all objects, in place of a list.
func beginsWithList(query url.Values) bool { return query.Get("sendInitialEvents") == "true" }

// refusal returns what a watch is answered in place of the API server, if anything: that its Reflector has to list first.
func (t *transport) refusal(watched *collection, request *http.Request, query url.Values) (*http.Response, error) {
	if watched.listIsDue() {
		watched.lists()
		return gone(request, "the watch has to begin with a new list"), nil
	}
	current, busy, err := t.revision(request, query)
	switch {
	case busy != nil || request.Context().Err() != nil:
		return busy, err
	case err != nil:
		watched.failed()
		watched.warn.Do(func() {
			t.log.Warn("The Kubernetes API cannot be watched: trying again", "resource", watched.resource, "err", err)
		})
		return nil, watchAgain(err)
	case isOlder(current, query.Get("resourceVersion")):
		watched.lists()
		t.metrics.restarted(reasonOlderRevision)
		t.log.Warn("The Kubernetes API has gone back to an older revision, as after a restore of etcd: listing all objects again. "+
			"Changes since the backup are lost: ended keys may be accepted again",
			"resource", watched.resource, "revision", current, "seen", query.Get("resourceVersion"))
		return gone(request, "the API server has gone back to the older revision "+current), nil
	}
	return nil, nil
}

// unreachableError is that of a watch for which a list would fail too. A Reflector takes most errors of a watch for a reason to list, so
// that all lists come at once when the API is back; a refused connection is the one after which it watches again.
type unreachableError struct{ reason string }

func (e *unreachableError) Error() string { return e.reason }

// Unwrap is what a Reflector knows a refused connection by.
func (*unreachableError) Unwrap() error { return syscall.ECONNREFUSED }

// watchAgain returns the error by which a Reflector knows that it has to watch again.
func watchAgain(err error) error {
	if utilnet.IsProbableEOF(err) { // by this text, client-go takes the watch for one that has ended at once
		return &unreachableError{"the connection to the Kubernetes API broke"}
	}
	return &unreachableError{err.Error()}
}

// isOlder says whether a revision is certainly older than another one. What is no revision is not.
func isOlder(current, seen string) bool {
	order, err := resourceversion.CompareResourceVersion(current, seen)
	return err == nil && order < 0
}

// revision asks for the current revision of what is to be watched. An API server that is too busy for that answers when to ask again.
func (t *transport) revision(watch *http.Request, query url.Values) (current string, busy *http.Response, err error) {
	request := watch.Clone(watch.Context())
	limited := selectors(query)
	limited.Set("limit", "1")
	request.URL.RawQuery = limited.Encode()
	request.Header.Set("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json")
	response, err := t.call(request)
	if err != nil || response.StatusCode == http.StatusTooManyRequests {
		return "", response, err
	}
	defer func() { _ = response.Body.Close() }() // it was read
	var answer struct {                          // a list, or why there is none
		Metadata metav1.ListMeta
		Message  string
	}
	err = json.NewDecoder(response.Body).Decode(&answer)
	switch {
	case response.StatusCode != http.StatusOK:
		return "", nil, fmt.Errorf("the Kubernetes API answers %s: %s", response.Status, answer.Message)
	case err != nil:
		return "", nil, fmt.Errorf("the current revision of %s cannot be read: %w", request.URL.Path, err)
	}
	return answer.Metadata.ResourceVersion, nil, nil
}

// consistent returns a request that reads what is so now. A Reflector accepts what an API server's cache holds, which may lag.
func consistent(request *http.Request, query url.Values) *http.Request {
	if !query.Has("resourceVersion") || query.Get("resourceVersionMatch") == string(metav1.ResourceVersionMatchExact) {
		return request
	}
	query.Del("resourceVersion")
	if !beginsWithList(query) { // where it has to be there
		query.Del("resourceVersionMatch")
	}
	request = request.Clone(request.Context())
	request.URL.RawQuery = query.Encode()
	return request
}

// gone is the answer by which a Reflector knows that it has to list.
func gone(request *http.Request, why string) *http.Response {
	status := apierrors.NewResourceExpired(why).Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	content, _ := json.Marshal(status) // has only texts and numbers
	return &http.Response{
		Status: "410 Gone", StatusCode: http.StatusGone, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(content)), ContentLength: int64(len(content)),
		Request: request,
	}
}

// send sends a request, and returns the answer and the body to read it by. Both fail when the API server is silent for too long.
func (t *transport) send(request *http.Request, silence time.Duration) (*http.Response, *body, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	silent := fmt.Errorf("%w for %s", errSilent, silence)
	timer := time.AfterFunc(silence, func() { cancel(silent) })
	response, err := t.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		timer.Stop()
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, nil, err
	}
	timer.Reset(silence)
	return response, &body{content: response.Body, ctx: ctx, cancel: cancel, timer: timer, silence: silence}, nil
}

var errSilent = errors.New("the Kubernetes API has sent nothing")

// causeOf returns why a context was cancelled, where that is why a call has failed.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

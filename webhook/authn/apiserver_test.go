// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework"
)

// listRecorder records the queries of lists. It responds to the first watch that the resource version has expired.
type listRecorder struct {
	next    http.RoundTripper
	mutex   sync.Mutex
	queries []url.Values
	expired bool
}

func (r *listRecorder) wrap(next http.RoundTripper) http.RoundTripper {
	r.next = next
	return r
}

func (r *listRecorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	switch query := request.URL.Query(); {
	case !query.Has("watch"):
		r.queries = append(r.queries, query)
	case !r.expired:
		r.expired = true
		return &http.Response{
			StatusCode: http.StatusGone, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(expired)),
		}, nil
	}
	return r.next.RoundTrip(request)
}

func (r *listRecorder) lists() []url.Values {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Clone(r.queries)
}

// expired is the response of an API server to a resource version that it has compacted.
const expired = `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410,"message":"too old"}`

// apiServer sends the responses that a test gives it, such as those of an API server that is old or broken.
type apiServer struct {
	t         *testing.T
	config    *rest.Config
	lists     chan string   // the continue token of each list request
	responses chan response // to lists
	watched   chan struct{}
	events    chan string // of a watch
}

type response struct {
	status int
	body   string
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{t: t, lists: make(chan string), responses: make(chan response), watched: make(chan struct{}, 10), events: make(chan string)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Has("watch") {
			a.watched <- struct{}{}
			a.serveWatch(w, r)
		} else {
			a.serveList(w, r)
		}
	}))
	t.Cleanup(server.Close)
	a.config = &rest.Config{Host: server.URL}
	return a
}

func (a *apiServer) serveList(w http.ResponseWriter, r *http.Request) {
	select {
	case a.lists <- r.URL.Query().Get("continue"):
	case <-r.Context().Done():
		return
	}
	select {
	case response := <-a.responses:
		w.WriteHeader(response.status)
		_, _ = io.WriteString(w, response.body)
	case <-r.Context().Done():
	}
}

// serveWatch sends nothing before the first event, not even headers.
func (a *apiServer) serveWatch(w http.ResponseWriter, r *http.Request) {
	for {
		select {
		case event := <-a.events:
			_, _ = io.WriteString(w, event+"\n")
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// awaitList waits for a list request, and returns its continue token.
func (a *apiServer) awaitList() string {
	a.t.Helper()
	select {
	case continueToken := <-a.lists:
		return continueToken
	case <-time.After(framework.Timeout):
		a.t.Fatal("no list request arrived")
		return ""
	}
}

// respond responds to the list request that awaitList has seen.
func (a *apiServer) respond(body string) { a.t.Helper(); a.respondWith(http.StatusOK, body) }

func (a *apiServer) respondWith(status int, body string) {
	a.t.Helper()
	select {
	case a.responses <- response{status, body}:
	case <-time.After(framework.Timeout):
		a.t.Fatal("no list request waits for a response")
	}
}

// sendEvent sends an event to the watch.
func (a *apiServer) sendEvent(event string) {
	a.t.Helper()
	select {
	case a.events <- event:
	case <-time.After(framework.Timeout):
		a.t.Fatal("no watch waits for an event")
	}
}

// listOf returns a page of a list. If next is not empty, another page follows.
func listOf(next string, objects ...string) string {
	return fmt.Sprintf(`{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKeyList","metadata":{"resourceVersion":"5","continue":%q},"items":[%s]}`,
		next, strings.Join(objects, ","))
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"sync"
	"time"

	"squirrel.dev/apikey-operator/internal/logging"
)

// collection is the state of the list and watch of one Reflector.
type collection struct {
	resource string          // the plural name, such as apikeys
	stopped  <-chan struct{} // closed when the Reflector has stopped
	log      *slog.Logger    // for failures, which repeat

	mutex    sync.Mutex
	lastSeen time.Time // when the watch last received data
	outage   bool      // the API was unreachable after the last watch had started
	relistAt time.Time // zero when no list is due
}

// collectionOf returns the collection of the Reflector that sends a request. It is kept until the context of the requests is done, because
// the Reflector has stopped by then.
func (t *transport) collectionOf(request *http.Request, query url.Values) *collection {
	ctx, key := request.Context(), request.URL.Path+"?"+selectors(query).Encode()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	c := t.collections[key]
	if c == nil {
		c = &collection{resource: path.Base(request.URL.Path), log: logging.Limit(t.log, 1), lastSeen: time.Now()}
		t.collections[key] = c
		t.metrics.add(c)
	}
	if c.stopped != ctx.Done() { // the first request of a Reflector
		c.stopped = ctx.Done()
		context.AfterFunc(ctx, func() { t.forget(key, ctx.Done()) })
	}
	return c
}

// forget removes a collection, unless another Reflector uses it by then.
func (t *transport) forget(key string, stopped <-chan struct{}) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if c := t.collections[key]; c != nil && c.stopped == stopped {
		delete(t.collections, key)
		t.metrics.remove(c)
	}
}

// selectors returns the label and field selectors of a query.
func selectors(query url.Values) url.Values {
	selected := url.Values{}
	for _, name := range []string{"labelSelector", "fieldSelector"} {
		if query.Has(name) {
			selected[name] = query[name]
		}
	}
	return selected
}

// listed records that the Reflector lists with a consistent read before its next watch.
func (c *collection) listed() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.outage, c.relistAt = false, time.Time{}
}

// unreachable records an outage of the API.
func (c *collection) unreachable() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.outage = true
}

// requireList records that the Reflector must list before its next watch.
func (c *collection) requireList() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.relistAt = time.Now()
}

// mustList reports whether the Reflector must list before its next watch.
func (c *collection) mustList() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return !c.relistAt.IsZero() && !time.Now().Before(c.relistAt)
}

// watchStarted records that a watch has started, and returns how long it may run before a list is due, if one is. After an outage a list is
// due: a restored etcd may have reached the last seen revision again, and the watch would not show the changes that the restore undid. A
// process that was paused missed outages too, which only its clock shows.
func (c *collection) watchStarted(timeouts Timeouts) (wait time.Duration, due bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := time.Now()
	if (c.outage || now.Sub(c.lastSeen) > timeouts.WatchIdle) && c.relistAt.IsZero() {
		c.relistAt = now.Add(rand.N(timeouts.RelistWithin)) //nolint:gosec // spreads load
	}
	c.outage, c.lastSeen = false, now
	return c.relistAt.Sub(now), !c.relistAt.IsZero()
}

// received records that the watch has received data.
func (c *collection) received() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.lastSeen = time.Now()
}

// staleness returns how long the watch has received nothing.
func (c *collection) staleness() time.Duration {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return time.Since(c.lastSeen)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// collection is the state of what one Reflector lists and watches.
type collection struct {
	resource string          // its plural name, such as apikeys
	stopped  <-chan struct{} // closed when the Reflector has stopped
	warn     rate.Sometimes

	mutex    sync.Mutex
	heard    time.Time // when the API server last sent something of a watch
	away     bool      // the API could not be reached since the last watch that began
	relistAt time.Time // zero when there is no need to list
}

// watched returns the collection that a Reflector watches at the URL of a request. It is kept until that Reflector, or what else watches,
// has stopped: the context of its requests is done then.
func (t *transport) watched(request *http.Request, query url.Values) *collection {
	ctx, key := request.Context(), request.URL.Path+"?"+selectors(query).Encode()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	watched := t.collections[key]
	if watched == nil {
		watched = &collection{
			resource: path.Base(request.URL.Path), warn: rate.Sometimes{Interval: logInterval}, heard: time.Now(),
		}
		t.collections[key] = watched
		t.metrics.add(watched)
	}
	if watched.stopped != ctx.Done() { // at its first request
		watched.stopped = ctx.Done()
		context.AfterFunc(ctx, func() { t.forget(key, ctx.Done()) })
	}
	return watched
}

// forget removes a collection, unless another Reflector watches it by now.
func (t *transport) forget(key string, stopped <-chan struct{}) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if watched := t.collections[key]; watched != nil && watched.stopped == stopped {
		delete(t.collections, key)
		t.metrics.remove(watched)
	}
}

// selectors returns the part of a query that says which objects it is about.
func selectors(query url.Values) url.Values {
	selected := url.Values{}
	for _, name := range []string{"labelSelector", "fieldSelector"} {
		if query.Has(name) {
			selected[name] = query[name]
		}
	}
	return selected
}

// lists records that the Reflector reads all objects, as they are now, before its next watch.
func (c *collection) lists() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.away, c.relistAt = false, time.Time{}
}

// failed records that the API could not be reached.
func (c *collection) failed() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.away = true
}

// listNow records that no watch may begin before a list.
func (c *collection) listNow() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.relistAt = time.Now()
}

// listIsDue says whether no watch may begin before a list.
func (c *collection) listIsDue() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return !c.relistAt.IsZero() && !time.Now().Before(c.relistAt)
}

// watching records that a watch has begun, and returns for how long it may go on before a list is due, if one is. That is so after the
// API was away: a restored etcd may have reached the revision that was seen before, and then the watch misses what it had undone. The
// API was away for a paused process, too, which knows it by its clock alone.
func (c *collection) watching(bounds Bounds) (wait time.Duration, due bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := time.Now()
	if (c.away || now.Sub(c.heard) > bounds.WatchSilence) && c.relistAt.IsZero() {
		c.relistAt = now.Add(rand.N(bounds.RelistWithin)) //nolint:gosec // spreads load
	}
	c.away, c.heard = false, now
	return c.relistAt.Sub(now), !c.relistAt.IsZero()
}

// heardNow records that the API server has sent something.
func (c *collection) heardNow() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.heard = time.Now()
}

// staleness returns for how long the API server has sent nothing.
func (c *collection) staleness() time.Duration {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return time.Since(c.heard)
}

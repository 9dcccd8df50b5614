// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/internal/kubeapi"
)

// controller runs a real reconciler with the event handler of the product, and with a cache, a queue and a worker of the simulation.
type controller struct {
	*process
	*cache
	*queue
	reconciler *controllers.APIKeyReconciler
	handler    handler.EventHandler
	transport  http.RoundTripper

	apiClock        *kubeapi.Clock
	isCheckingClock bool
}

// cache is the cache of keys of a controller.
type cache struct {
	keys     map[types.NamespacedName]*v1alpha1.APIKey
	synced   bool
	observed int64                          // the highest revision that the cache is known to have
	written  map[types.NamespacedName]int64 // the revision of the controller's last write of each key
	indexes  map[string]client.IndexerFunc
	// seesUnchanged is false if the handler sees no event of a key that a list has unchanged. So it is from the first periodic resync on.
	seesUnchanged bool
	// notifications are events that the handler has not seen yet.
	notifications []func()
}

func newCache() *cache {
	return &cache{
		keys: map[types.NamespacedName]*v1alpha1.APIKey{}, written: map[types.NamespacedName]int64{}, indexes: map[string]client.IndexerFunc{},
	}
}

// IndexField adds an index.
func (c *cache) IndexField(_ context.Context, _ client.Object, field string, extract client.IndexerFunc) error {
	c.indexes[field] = extract
	return nil
}

func (c *cache) matches(key *v1alpha1.APIKey, field, value string) bool {
	return slices.Contains(c.indexes[field](key), value)
}

func (s *simulation) newController(name string) *controller {
	return &controller{process: &process{simulation: s, name: name, isController: true}}
}

// background is the context of the reconciles, which are not logged.
var background = log.IntoContext(context.Background(), logr.Discard())

// start starts a new process.
func (c *controller) start() {
	c.process.start()
	c.cache = newCache()
	c.seesUnchanged = !c.chance(20)
	c.queue = newQueue(c.process, c.work)
	must(apikey.Index(background, c.cache))
	config := &rest.Config{Host: "http://simulation", Transport: roundTripper{c.process}}
	var err error
	c.apiClock, err = kubeapi.NewClock(config, c.process.clock, slog.New(slog.DiscardHandler))
	must(err)
	c.transport, err = rest.TransportFor(config)
	must(err)
	live := liveClient{process: c.process, send: c.send}
	c.reconciler = &controllers.APIKeyReconciler{
		Client: &cachedClient{live, c.cache}, Secrets: &live, Events: recorder{c.process},
		Now: c.apiClock.Now, CheckClock: c.checkClock, Queue: c.queue,
	}
	c.handler = c.reconciler.EventHandler()
	c.process.newWatcher(c.replace, c.apply, func() {})
	c.renewLease()
}

// renewLease lets the clock read the responses to the requests of leader election.
func (c *controller) renewLease() {
	c.readClock()
	c.process.after(renewPeriod, c.renewLease)
}

// renewPeriod is longer than that of controller-runtime, 2 seconds, which would take most of the time of a run.
const renewPeriod = 20 * time.Second

// readClock lets the clock read the response to a request that no task sends.
func (c *controller) readClock() {
	if c.isCutOff() {
		return
	}
	request, err := http.NewRequestWithContext(context.WithValue(background, callKey{}, prompt), http.MethodGet, "http://simulation/", nil)
	must(err)
	response, err := c.transport.RoundTrip(request)
	must(err)
	response.Body.Close()
}

// checkClock lets one worker check the clock at a time. The others wait as for the mutex of the Clock, which the simulation cannot see.
func (c *controller) checkClock(ctx context.Context) error {
	for c.isCheckingClock {
		if err := c.do(ctx, &call{execute: func() error { return nil }, isLocal: true}); err != nil {
			return err
		}
	}
	c.isCheckingClock = true
	defer func() { c.isCheckingClock = false }()
	return c.apiClock.Check(ctx)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// send sends a request through the transport whose responses the clock reads.
func (c *controller) send(ctx context.Context, request *call) error {
	c.checkRecorded(c.running)
	r, err := http.NewRequestWithContext(context.WithValue(ctx, callKey{}, request), http.MethodGet, "http://simulation/", nil)
	must(err)
	response, err := c.transport.RoundTrip(r)
	if err == nil {
		response.Body.Close()
		err = request.err
	}
	return err
}

type callKey struct{}

// roundTripper is the connection of a controller to the API server.
type roundTripper struct{ *process }

// RoundTrip sends the call of the context, or a request for the version.
func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	sent, ok := request.Context().Value(callKey{}).(*call)
	if !ok {
		sent = &call{name: text("GET /version"), execute: func() error { return nil }}
	}
	if sent == prompt {
		return respond(request, http.StatusOK, r.simulation.clock()), nil
	}
	err := r.do(request.Context(), sent)
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return respond(request, http.StatusOK, sent.date), nil
	case errors.As(err, &status):
		return respond(request, int(status.Status().Code), sent.date), nil
	default:
		return nil, err
	}
}

// respond returns a response whose only content is its date.
func respond(request *http.Request, code int, date time.Time) *http.Response {
	return &http.Response{
		StatusCode: code, Header: http.Header{"Date": {date.UTC().Format(http.TimeFormat)}}, Body: io.NopCloser(strings.NewReader("{}")),
		Request: request,
	}
}

// prompt stands for a request that no task sends, and that gets its response at once.
var prompt = &call{}

// replace replaces the cache by a list.
func (c *controller) replace(keys []*v1alpha1.APIKey) {
	c.readClock()
	former := c.cache.keys
	c.cache.keys = make(map[types.NamespacedName]*v1alpha1.APIKey, len(keys))
	for _, listed := range keys {
		c.cache.keys[client.ObjectKeyFromObject(listed)] = trim(listed)
	}
	for _, name := range sortedNames(former) {
		if key := former[name]; c.cache.keys[name] == nil {
			c.notify(key, func() {
				c.handler.Delete(background, event.DeleteEvent{Object: key, DeleteStateUnknown: true}, c.queue)
			})
		}
	}
	isInitial := !c.synced
	for _, name := range c.inSomeOrder(sortedNames(c.cache.keys)) {
		switch old, key := former[name], c.cache.keys[name]; {
		case old == nil:
			c.notify(key, func() {
				c.handler.Create(background, event.CreateEvent{Object: key, IsInInitialList: isInitial}, c.queue)
			})
		case old.ResourceVersion != key.ResourceVersion || c.seesUnchanged:
			c.notify(key, func() { c.handler.Update(background, event.UpdateEvent{ObjectOld: old, ObjectNew: key}, c.queue) })
		}
	}
	c.synced = true
	c.process.after(0, c.work)
}

// apply adds an event of the watch to the cache.
func (c *controller) apply(published *change) {
	if published.cached == nil {
		published.cached = trim(published.key)
	}
	key := published.cached
	c.log(c.name, func() string { return "sees " + c.describeChange(published) })
	name := client.ObjectKeyFromObject(key)
	former := c.cache.keys[name]
	switch {
	case published.kind == "DELETED":
		delete(c.cache.keys, name)
		c.notify(key, func() { c.handler.Delete(background, event.DeleteEvent{Object: key}, c.queue) })
	case former == nil:
		c.cache.keys[name] = key
		c.notify(key, func() { c.handler.Create(background, event.CreateEvent{Object: key}, c.queue) })
	default:
		c.cache.keys[name] = key
		c.notify(key, func() { c.handler.Update(background, event.UpdateEvent{ObjectOld: former, ObjectNew: key}, c.queue) })
	}
}

// trim returns the key as the cache of the product has it.
func trim(key *v1alpha1.APIKey) *v1alpha1.APIKey {
	trimmed, err := transform(key.DeepCopy())
	must(err)
	return trimmed.(*v1alpha1.APIKey)
}

var transform = func() func(any) (any, error) {
	for _, options := range controllers.CacheOptions().ByObject {
		return options.Transform
	}
	panic("the cache has no options for keys")
}()

// notify passes an event to the handler, after those before it and perhaps later than to the cache. The goroutine that records which
// revision the cache has may be earlier or later.
func (c *controller) notify(key *v1alpha1.APIKey, handle func()) {
	c.notifications = append(c.notifications, handle)
	c.process.after(c.notificationDelay(), func() {
		next := c.notifications[0]
		c.notifications = c.notifications[1:]
		next()
	})
	c.process.after(c.notificationDelay(), func() { c.observed = max(c.observed, revisionOf(key)) })
}

func (c *controller) notificationDelay() time.Duration {
	if c.chance(10) {
		return c.watchDelay()
	}
	return 0
}

// work starts reconciles while a worker is idle and a request is ready.
func (c *controller) work() {
	for c.synced && len(c.tasks) < c.profile.workers {
		request, priority, ok := c.queue.pop()
		if !ok {
			return
		}
		c.reconcile(request, priority)
	}
}

// reconcile lets a worker process a request.
func (c *controller) reconcile(request reconcile.Request, priority int) {
	c.log(c.name, func() string { return "reconciles " + request.String() })
	var result reconcile.Result
	var err error
	var worker *task
	c.execute(func() {
		worker = c.running
		ctx, cancel := context.WithTimeout(background, controllers.ReconcileTimeout)
		defer cancel()
		result, err = c.reconciler.Reconcile(ctx, request)
	}, func() {
		c.checkRecorded(worker)
		if result.Priority != nil {
			priority = *result.Priority
		}
		switch {
		case err != nil:
			c.log(c.name, func() string { return "cannot reconcile " + request.String() + ": " + err.Error() })
			c.queue.AddWithOpts(priorityqueue.AddOpts{RateLimited: true, Priority: &priority}, request)
		case result.RequeueAfter > 0:
			c.limiter.Forget(request)
			c.queue.AddWithOpts(priorityqueue.AddOpts{After: result.RequeueAfter, Priority: &priority}, request)
		default:
			c.limiter.Forget(request)
		}
		c.queue.done(request)
	})
}

// recorder records the events of a controller.
type recorder struct{ *process }

var _ events.EventRecorder = recorder{}

// Eventf records an event.
func (r recorder) Eventf(regarding, _ runtime.Object, _, reason, _, note string, args ...any) {
	if !r.up {
		return
	}
	key := regarding.(*v1alpha1.APIKey)
	r.log(r.name, func() string { return "records the event " + reason + " of " + describeName(key) })
	r.checkEvent(key, reason, fmt.Sprintf(note, args...))
}

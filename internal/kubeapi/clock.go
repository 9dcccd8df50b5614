// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/internal/logging"
)

const (
	// maxClockDifference is the largest difference of the clocks at which irreversible decisions may follow the local clock.
	maxClockDifference = 5 * time.Second

	// maxReadingAge is how long a Date of the API server is used. The drift of the local clock over that time is negligible.
	maxReadingAge = time.Minute

	// maxRoundTrip is the longest round trip of a precise response.
	maxRoundTrip = time.Second

	// requestTimeout is the timeout of a request for the API server's time.
	requestTimeout = 2 * maxRoundTrip
)

// Clock compares the local clock with that of the API server, which it reads from the Date header of all responses.
type Clock struct {
	local  func() time.Time
	client *discovery.DiscoveryClient
	log    *slog.Logger

	requesting sync.Mutex
	last       atomic.Pointer[reading]
}

// NewClock returns a Clock that reads the responses to all clients that are created from config later. The local clock is [time.Now],
// except in tests.
func NewClock(config *rest.Config, local func() time.Time, log *slog.Logger) (*Clock, error) {
	c := &Clock{local: local, log: logging.Limit(log, 1)}
	config.Wrap(c.wrap)
	var err error
	if c.client, err = discovery.NewDiscoveryClientForConfig(config); err != nil {
		return nil, fmt.Errorf("create a client for the API server's time: %w", err)
	}
	return c, nil
}

// Now returns the local time, or the nearest possible time of the API server's clock if that differs.
func (c *Clock) Now() time.Time {
	local, now := c.local(), time.Now()
	current := c.last.Load()
	if !current.isUsable(now) {
		return local
	}
	return current.nearest(local, now)
}

// Check returns an error while the difference of the clocks exceeds maxClockDifference, or is unknown. The caller must then not do
// anything irreversible that only the clock demands. Without a precise response of the last minute, Check sends a request.
func (c *Clock) Check(ctx context.Context) error {
	if !c.last.Load().isPrecise(time.Now()) {
		if err := c.request(ctx); err != nil {
			return fmt.Errorf("the API server's time is not known: %w", err)
		}
	}
	return c.checkDifference()
}

// difference returns the least possible difference of the clocks: positive if the local clock is ahead of the API server's, and 0 if they
// may be equal. Without a usable response of the last minute, known is false.
func (c *Clock) difference() (ahead time.Duration, known bool) {
	local, now := c.local(), time.Now()
	current := c.last.Load()
	if !current.isUsable(now) {
		return 0, false
	}
	return local.Round(0).Sub(current.nearest(local, now)), true // Round strips the monotonic reading
}

// RegisterMetrics registers the metric of the difference of the clocks.
func (c *Clock) RegisterMetrics(registry prometheus.Registerer) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apikey_clock_difference_seconds",
		Help: "The least possible lead of the local clock over that of the Kubernetes API server, in seconds; NaN if unknown.",
	}, func() float64 {
		ahead, known := c.difference()
		if !known {
			return math.NaN()
		}
		return ahead.Seconds()
	}))
}

func (c *Clock) checkDifference() error {
	ahead, _ := c.difference()
	if ahead.Abs() <= maxClockDifference {
		return nil
	}
	direction := "ahead of"
	if ahead < 0 {
		direction = "behind"
	}
	return fmt.Errorf("the controller's clock is %s %s the API server's: set the clocks of their nodes by NTP",
		ahead.Abs().Round(time.Second), direction)
}

// request sends a request for the API server's time. Concurrent callers share one request.
func (c *Clock) request(ctx context.Context) error {
	c.requesting.Lock()
	defer c.requesting.Unlock()
	if c.last.Load().isPrecise(time.Now()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.client.RESTClient().Get().AbsPath("/version").SetHeader("Cache-Control", "no-cache").Do(ctx).Error()
	responded := err == nil || errors.As(err, new(apierrors.APIStatus))
	switch {
	case c.last.Load().isPrecise(time.Now()): // an error response has a Date too
		return nil
	case responded:
		return fmt.Errorf("the response to GET /version has no usable Date, or took longer than %s", maxRoundTrip)
	default:
		return err
	}
}

// wrap is a [transport.WrapperFunc].
func (c *Clock) wrap(next http.RoundTripper) http.RoundTripper {
	return &dateReader{next: next, clock: c}
}

// dateReader is a transport that passes the Date of responses to a Clock.
type dateReader struct {
	next  http.RoundTripper
	clock *Clock
}

// RoundTrip implements [http.RoundTripper].
func (d *dateReader) RoundTrip(request *http.Request) (*http.Response, error) {
	sent := time.Now()
	response, err := d.next.RoundTrip(request)
	if err == nil {
		d.clock.observe(newReading(request, response, sent, time.Now()))
	}
	return response, err
}

// WrappedRoundTripper implements the RoundTripperWrapper of apimachinery's util/net.
func (d *dateReader) WrappedRoundTripper() http.RoundTripper { return d.next }

func (c *Clock) observe(read *reading) {
	if now := time.Now(); read == nil || (c.last.Load().isPrecise(now) && !read.isPrecise(now)) {
		return
	}
	c.last.Store(read)
	if err := c.checkDifference(); err != nil {
		c.log.Warn("Expiry of keys, deletion of Secrets by ttl and new authorities are on hold until the clocks agree", "err", err)
	}
}

// reading is the API server's time in a response.
type reading struct {
	date           time.Time // of the response, rounded down to a second
	sent, received time.Time // the request and the response
}

// newReading returns nil for an unusable response. The Date of a watch is that of its start. That of a cached response is old. A proxy in
// front of the API server sets the Date of the errors that it returns.
func newReading(request *http.Request, response *http.Response, sent, received time.Time) *reading {
	date, err := http.ParseTime(response.Header.Get("Date"))
	age := response.Header.Get("Age")
	switch {
	case err != nil, isWatch(request.URL.Query()), age != "" && age != "0", response.StatusCode >= http.StatusInternalServerError:
		return nil
	}
	return &reading{date: date, sent: sent, received: received}
}

func (r *reading) isUsable(now time.Time) bool {
	return r != nil && now.Sub(r.received) <= maxReadingAge
}

// isPrecise reports whether the reading is usable, and gives the time to about a second. The longer a round trip takes, the less is known
// of when the API server responded.
func (r *reading) isPrecise(now time.Time) bool {
	return r.isUsable(now) && r.received.Sub(r.sent) <= maxRoundTrip
}

// nearest returns the time nearest to local that the API server's clock can show now. The API server responded after the request was sent,
// before the response was received, and less than a second after the Date. The time since is the difference of monotonic readings, so a
// local clock that was set in the meantime does not matter.
func (r *reading) nearest(local, now time.Time) time.Time {
	earliest := r.date.Add(now.Sub(r.received))
	latest := r.date.Add(time.Second + now.Sub(r.sent))
	switch {
	case local.Before(earliest):
		return earliest
	case local.After(latest):
		return latest
	default:
		return local
	}
}

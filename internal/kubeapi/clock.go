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
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

const (
	// MaxClockDifference is how far the local clock may be from the API server's for decisions that cannot be undone.
	MaxClockDifference = 5 * time.Second

	// maxReadingAge is how long a Date of the API server is used. Local clocks run evenly enough over that time.
	maxReadingAge = time.Minute

	// maxRoundTrip is how long an answer may take: the longer it takes, the less its Date says about the time.
	maxRoundTrip = time.Second

	// requestTimeout bounds the request for the API server's time.
	requestTimeout = 2 * maxRoundTrip

	logInterval = time.Minute
)

// Clock compares the local clock with that of the API server, which it reads from the Date header of the answers that clients get anyway.
type Clock struct {
	local  func() time.Time
	client *discovery.DiscoveryClient
	log    *slog.Logger
	warn   rate.Sometimes

	requesting sync.Mutex
	last       atomic.Pointer[reading]
}

// NewClock returns a Clock that reads the answers to all clients that are made from the config afterwards. The local clock is [time.Now],
// but in tests.
func NewClock(config *rest.Config, local func() time.Time, log *slog.Logger) (*Clock, error) {
	c := &Clock{local: local, log: log, warn: rate.Sometimes{Interval: logInterval}}
	config.Wrap(c.wrap)
	var err error
	if c.client, err = discovery.NewDiscoveryClientForConfig(config); err != nil {
		return nil, fmt.Errorf("make a client that reads the API server's time: %w", err)
	}
	return c, nil
}

// Now returns the local time. Where that cannot be the API server's time, Now returns the nearest time that can be.
func (c *Clock) Now() time.Time {
	local, now := c.local(), time.Now()
	current := c.last.Load()
	if !current.isUsable(now) {
		return local
	}
	return current.nearest(local, now)
}

// Check returns nil while the local clock differs from the API server's by no more than MaxClockDifference. It asks the API server for
// the time when no answer of the last minute told it. While Check returns an error, nothing may be done that cannot be undone and that
// only the clock demands.
func (c *Clock) Check(ctx context.Context) error {
	if !c.last.Load().isUsable(time.Now()) {
		if err := c.request(ctx); err != nil {
			return fmt.Errorf("the API server's time is not known: %w", err)
		}
	}
	return c.disagreement()
}

// Difference returns how far the local clock is ahead of the API server's, at least, or behind it if negative. It is 0 while the two may
// be equal, and known is false when no answer of the last minute told the API server's time.
func (c *Clock) Difference() (ahead time.Duration, known bool) {
	local, now := c.local(), time.Now()
	current := c.last.Load()
	if !current.isUsable(now) {
		return 0, false
	}
	return local.Round(0).Sub(current.nearest(local, now)), true // Round: compare what the clocks show
}

// RegisterMetrics adds the difference of the clocks to a registry.
func (c *Clock) RegisterMetrics(registry prometheus.Registerer) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apikey_clock_difference_seconds",
		Help: "How far the clock of this process is ahead of the Kubernetes API server's, at least; NaN when not known.",
	}, func() float64 {
		ahead, known := c.Difference()
		if !known {
			return math.NaN()
		}
		return ahead.Seconds()
	}))
}

func (c *Clock) disagreement() error {
	ahead, _ := c.Difference()
	if ahead.Abs() <= MaxClockDifference {
		return nil
	}
	direction := "ahead of"
	if ahead < 0 {
		direction = "behind"
	}
	return fmt.Errorf("the controller's clock is %s %s the API server's: set the clocks of their nodes by NTP",
		ahead.Abs().Round(time.Second), direction)
}

// request asks the API server for the time. Of several that do so at once, one sends a request.
func (c *Clock) request(ctx context.Context) error {
	c.requesting.Lock()
	defer c.requesting.Unlock()
	if c.last.Load().isUsable(time.Now()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.client.RESTClient().Get().AbsPath("/version").SetHeader("Cache-Control", "no-cache").Do(ctx).Error()
	answered := err == nil || errors.As(err, new(apierrors.APIStatus))
	switch {
	case c.last.Load().isUsable(time.Now()): // a refusal has a Date too
		return nil
	case answered:
		return fmt.Errorf("the answer to GET /version has no usable Date, or took longer than %s", maxRoundTrip)
	default:
		return err
	}
}

// wrap is a [transport.WrapperFunc].
func (c *Clock) wrap(next http.RoundTripper) http.RoundTripper {
	return &dateReader{next: next, clock: c}
}

// dateReader is a transport that shows a Clock the answers.
type dateReader struct {
	next  http.RoundTripper
	clock *Clock
}

// RoundTrip implements [http.RoundTripper].
func (d *dateReader) RoundTrip(request *http.Request) (*http.Response, error) {
	sent := time.Now()
	response, err := d.next.RoundTrip(request)
	if err == nil {
		d.clock.learn(newReading(request, response, sent, time.Now()))
	}
	return response, err
}

// WrappedRoundTripper implements the RoundTripperWrapper of apimachinery.
func (d *dateReader) WrappedRoundTripper() http.RoundTripper { return d.next }

func (c *Clock) learn(read *reading) {
	if read == nil {
		return
	}
	c.last.Store(read)
	if err := c.disagreement(); err != nil {
		c.warn.Do(func() {
			c.log.Warn("Ends of keys by expiry, removals of Secrets by their ttl and new authorities wait", "err", err)
		})
	}
}

// reading is what an answer says about the API server's time.
type reading struct {
	date           time.Time // when the API server answered, rounded down to a second
	sent, received time.Time // of the request and its answer
}

// newReading returns nil for an answer that says nothing: the Date of a watch is that of its start, that of an answer out of a cache is
// old, and a gateway in front of the API server answers by its own clock when it fails.
func newReading(request *http.Request, response *http.Response, sent, received time.Time) *reading {
	date, err := http.ParseTime(response.Header.Get("Date"))
	isWatch, _ := strconv.ParseBool(request.URL.Query().Get("watch"))
	age := response.Header.Get("Age")
	switch {
	case err != nil, isWatch, age != "" && age != "0", response.StatusCode >= http.StatusInternalServerError,
		received.Sub(sent) > maxRoundTrip:
		return nil
	}
	return &reading{date: date, sent: sent, received: received}
}

func (r *reading) isUsable(now time.Time) bool {
	return r != nil && now.Sub(r.received) <= maxReadingAge
}

// nearest returns the time nearest to local that the API server's clock can show at the instant now. The API server answered not before
// the request was sent, not after its answer was received, and less than a second after the Date. What has passed since, a local clock
// that was set in the meantime measures all the same: the differences are those of monotonic readings.
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

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"bytes"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
)

// noon is the time of the requests.
var noon = time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)

func TestNewReading(t *testing.T) {
	for name, test := range map[string]struct {
		query  string
		status int
		header map[string]string
		want   bool
	}{
		"a response":              {want: true},
		"an error response":       {status: http.StatusForbidden, want: true},
		"a list":                  {query: "limit=500&labelSelector=watch%3Dtrue", want: true},
		"not a watch":             {query: "watch=false", want: true},
		"a watch":                 {query: "allowWatchBookmarks=true&watch=true"},
		"a watch by number":       {query: "watch=1"},
		"a fresh cached response": {header: map[string]string{"Age": "0"}, want: true},
		"an old cached response":  {header: map[string]string{"Age": "1"}},
		"an invalid Age":          {header: map[string]string{"Age": "old"}},
		"an error of a proxy":     {status: http.StatusBadGateway},
		"no Date":                 {header: map[string]string{"Date": ""}},
		"an invalid Date":         {header: map[string]string{"Date": "noon"}},
	} {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(http.MethodGet, "/apis/keys.squirrel.dev/v1alpha1/apikeys?"+test.query, nil)
			response := &http.Response{StatusCode: max(test.status, http.StatusOK), Header: http.Header{}}
			response.Header.Set("Date", noon.Format(http.TimeFormat))
			for name, value := range test.header {
				response.Header.Set(name, value)
			}
			read := newReading(request, response, noon, noon)
			switch {
			case (read != nil) != test.want:
				t.Errorf("the reading is %v", read)
			case test.want && !read.date.Equal(noon):
				t.Errorf("the date read is %s", read.date)
			}
		})
	}
}

func TestReading_Nearest(t *testing.T) {
	for name, test := range map[string]struct {
		took    time.Duration // the round trip
		elapsed time.Duration // since the response was received
		local   time.Duration // the local time, after the Date
		want    time.Duration // the nearest time, after the Date
	}{
		"the same second":                    {local: 0, want: 0},
		"late in that second":                {local: 999 * time.Millisecond, want: 999 * time.Millisecond},
		"the next second":                    {local: time.Second, want: time.Second},
		"after it":                           {local: 1001 * time.Millisecond, want: time.Second},
		"before it":                          {local: -time.Millisecond, want: 0},
		"an hour ahead":                      {local: time.Hour, want: time.Second},
		"an hour behind":                     {local: -time.Hour, want: 0},
		"slow, responded at once":            {took: 800 * time.Millisecond, local: 1800 * time.Millisecond, want: 1800 * time.Millisecond},
		"slow, responded before the request": {took: 800 * time.Millisecond, local: 1801 * time.Millisecond, want: 1800 * time.Millisecond},
		"slow, responded at the end":         {took: 800 * time.Millisecond, local: 0, want: 0},
		"half a minute ago":                  {elapsed: 30 * time.Second, local: 30 * time.Second, want: 30 * time.Second},
		"half a minute ago, ahead":           {elapsed: 30 * time.Second, local: time.Hour, want: 31 * time.Second},
		"half a minute ago, behind":          {elapsed: 30 * time.Second, local: 0, want: 30 * time.Second},
		"half a minute ago, slow, ahead":     {took: time.Second, elapsed: 30 * time.Second, local: time.Hour, want: 32 * time.Second},
		"half a minute ago, slow, behind":    {took: time.Second, elapsed: 30 * time.Second, local: 0, want: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			read := &reading{date: noon, sent: noon, received: noon.Add(test.took)}
			now := read.received.Add(test.elapsed)
			if got := read.nearest(noon.Add(test.local), now).Sub(noon); got != test.want {
				t.Errorf("the time is %s after the Date, want %s", got, test.want)
			}
		})
	}
}

func TestReading_IsUsableForAMinute(t *testing.T) {
	read := &reading{date: noon, sent: noon, received: noon}
	for elapsed, want := range map[time.Duration]bool{0: true, time.Minute: true, time.Minute + 1: false} {
		if got := read.isUsable(noon.Add(elapsed)); got != want {
			t.Errorf("after %s the reading is usable: %t, want %t", elapsed, got, want)
		}
	}
	if (*reading)(nil).isUsable(noon) {
		t.Error("a nil reading is usable")
	}
}

func TestReading_IsPreciseAfterAShortRoundTrip(t *testing.T) {
	for took, want := range map[time.Duration]bool{0: true, time.Second: true, time.Second + 1: false} {
		read := &reading{date: noon, sent: noon, received: noon.Add(took)}
		if got := read.isPrecise(noon.Add(took)); got != want {
			t.Errorf("after a round trip of %s the reading is precise: %t, want %t", took, got, want)
		}
		if !read.isUsable(noon.Add(took)) {
			t.Errorf("after a round trip of %s the reading is not usable", took)
		}
		if read.isPrecise(noon.Add(time.Hour)) {
			t.Error("a reading that is not usable is precise")
		}
	}
}

// A slow API server gives its time too: otherwise, the claim of a controller with a wrong clock would have a wrong time.
func TestClock_SlowAPIServer(t *testing.T) {
	s := newAPIServer(t)
	s.local.Store(int64(time.Hour))
	now := time.Now()
	slow := &reading{date: now, sent: now.Add(-5 * time.Second), received: now}
	s.observe(slow)
	if ahead := time.Until(s.Now()); ahead > 10*time.Second {
		t.Errorf("Now is %s ahead", ahead)
	}
	if err := s.Check(t.Context()); err == nil || s.requests.Load() != 1 {
		t.Errorf("Check sent %d requests and returned %v, want a precise response that differs", s.requests.Load(), err)
	}
	if precise := s.last.Load(); precise == slow {
		t.Error("the precise response was not used")
	} else if s.observe(slow); s.last.Load() != precise {
		t.Error("a slow response replaced a precise one")
	}
}

// apiServer is a server with its own clock, and a Clock that reads it.
type apiServer struct {
	*Clock
	ahead    time.Duration // of the server's clock
	local    atomic.Int64  // the lead of the local clock, a time.Duration
	header   http.Header
	requests atomic.Int64
	log      bytes.Buffer
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{header: http.Header{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.requests.Add(1)
		w.Header().Set("Date", time.Now().Add(s.ahead).UTC().Format(http.TimeFormat))
		for name := range s.header {
			w.Header().Set(name, s.header.Get(name))
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(server.Close)
	var err error
	local := func() time.Time { return time.Now().Add(time.Duration(s.local.Load())) }
	s.Clock, err = NewClock(&rest.Config{Host: server.URL}, local, slog.New(slog.NewTextHandler(&s.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *apiServer) check(t *testing.T, want string) {
	t.Helper()
	if err := s.Check(t.Context()); err == nil && want != "" || err != nil && err.Error() != want {
		t.Errorf("Check returned %v, want %q", err, want)
	}
}

func TestClock_EqualClocks(t *testing.T) {
	s := newAPIServer(t)
	if _, known := s.difference(); known {
		t.Error("the difference is known before a response")
	}
	for range 3 {
		s.check(t, "")
	}
	if requests := s.requests.Load(); requests != 1 {
		t.Errorf("the API server received %d requests, want 1", requests)
	}
	s.local.Store(int64(3 * time.Second))
	s.check(t, "")
	if ahead, known := s.difference(); !known || ahead < time.Second || ahead > 3*time.Second {
		t.Errorf("the difference is %s, known %t", ahead, known)
	}
	if printed := s.log.String(); printed != "" {
		t.Errorf("logged: %s", printed)
	}
}

func TestClock_DifferentClocks(t *testing.T) {
	for name, test := range map[string]struct{ local, server time.Duration }{
		"the local clock is ahead": {local: time.Hour},
		"the API server is behind": {server: -time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := newAPIServer(t)
			s.ahead = test.server
			s.local.Store(int64(test.local))
			err := s.Check(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), "the controller's clock is 59m5") && !strings.HasPrefix(err.Error(), "the controller's clock is 1h0m0s") {
				t.Errorf("Check returned %v", err)
			}
			if now := time.Since(s.Now()); (now - test.server.Abs()).Abs() > 10*time.Second {
				t.Errorf("Now is %s ago", now)
			}
			if requests := s.requests.Load(); requests != 1 {
				t.Errorf("the API server received %d requests, want 1", requests)
			}
		})
	}
}

// A change of the local clock takes effect without a new response.
func TestClock_LocalClockIsChanged(t *testing.T) {
	s := newAPIServer(t)
	s.check(t, "")
	for ahead, want := range map[time.Duration]string{
		24 * time.Hour:  "ahead of the API server's: set the clocks of their nodes by NTP",
		-24 * time.Hour: "behind the API server's: set the clocks of their nodes by NTP",
	} {
		s.local.Store(int64(ahead))
		if err := s.Check(t.Context()); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("Check returned %v", err)
		}
		if now := time.Until(s.Now()).Abs(); now > 10*time.Second {
			t.Errorf("Now is %s off", now)
		}
		s.local.Store(0)
		s.check(t, "")
	}
	if requests := s.requests.Load(); requests != 1 {
		t.Errorf("the API server received %d requests, want 1", requests)
	}
}

func TestClock_UnknownTimeOfTheAPIServer(t *testing.T) {
	s := newAPIServer(t)
	s.header.Set("Age", "60")
	s.local.Store(int64(time.Hour))
	s.check(t, "the API server's time is not known: the response to GET /version has no usable Date, or took longer than 1s")
	if now := time.Until(s.Now()); (now - time.Hour).Abs() > 10*time.Second {
		t.Errorf("Now is %s ahead, want the local time", now)
	}
	if got := s.metric(t); !math.IsNaN(got) {
		t.Errorf("the metric is %v", got)
	}
}

func TestClock_LogsAndMeasuresTheDifference(t *testing.T) {
	s := newAPIServer(t)
	s.local.Store(int64(-time.Hour))
	for range 3 {
		if err := s.client.RESTClient().Get().AbsPath("/anything").Do(t.Context()).Error(); err == nil {
			t.Fatal("the request succeeded")
		}
	}
	if printed := s.log.String(); strings.Count(printed, "\n") != 1 ||
		!strings.Contains(printed, `msg="Expiry of keys, deletion of Secrets by ttl and new authorities are on hold until the clocks agree" err="the controller's clock is `) {
		t.Errorf("logged: %s", printed)
	}
	if got := s.metric(t); got < -3600 || got > -3590 {
		t.Errorf("the metric is %v", got)
	}
}

// metric returns the value of the metric.
func (s *apiServer) metric(t *testing.T) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	s.RegisterMetrics(registry)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "apikey_clock_difference_seconds" {
		t.Fatalf("the metrics are %v (%v)", families, err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const (
	collectionURL = "https://api/apis/keys.squirrel.dev/v1alpha1/apikeys"
	watchURL      = collectionURL + "?watch=true&allowWatchBookmarks=true&timeoutSeconds=400&resourceVersion="
)

// api is a fake API server, with a transport to it.
type api struct {
	transport *transport
	registry  *prometheus.Registry
	revision  string
	down      error // the error of requests, unless nil
	status    int
	queries   []string // of the requests
	stream    *stream  // of the last watch
}

func newAPI() *api {
	a := &api{revision: "100", status: http.StatusOK, registry: prometheus.NewRegistry()}
	a.transport = &transport{
		next: a, timeouts: DefaultTimeouts(), metrics: NewMetrics(a.registry), log: slog.New(slog.DiscardHandler), collections: map[string]*collection{},
	}
	return a
}

func (a *api) RoundTrip(request *http.Request) (*http.Response, error) {
	a.queries = append(a.queries, request.URL.RawQuery)
	if a.down != nil {
		return nil, a.down
	}
	content := io.NopCloser(strings.NewReader(fmt.Sprintf(`{"metadata":{"resourceVersion":%q}}`, a.revision)))
	if isWatch(request.URL.Query()) {
		a.stream = &stream{ctx: request.Context(), sent: make(chan error)}
		content = a.stream
	}
	status := fmt.Sprint(a.status, " ", http.StatusText(a.status))
	return &http.Response{Status: status, StatusCode: a.status, Body: content, Request: request}, nil
}

// stream is a response body that is sent in parts.
type stream struct {
	ctx  context.Context
	sent chan error // nil sends an event
}

func (s *stream) Read(p []byte) (int, error) {
	select {
	case err := <-s.sent:
		switch {
		case errors.Is(err, errPadding):
			return copy(p, " \n"), nil
		case err != nil:
			return 0, err
		}
		return copy(p, "event\n"), nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

// errPadding makes a stream send white space.
var errPadding = errors.New("padding")

func (*stream) Close() error { return nil }

func (a *api) get(ctx context.Context, t *testing.T, url string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a.transport.RoundTrip(request)
}

// watch starts a watch at the revision 100, which must succeed.
func (a *api) watch(t *testing.T) *http.Response {
	t.Helper()
	response, err := a.get(t.Context(), t, watchURL+"100")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the response to the watch is %v, %v", response, err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// assertMustList asserts that the next watch is rejected, so that its Reflector lists, and that the one after that succeeds.
func (a *api) assertMustList(t *testing.T) {
	t.Helper()
	response, err := a.get(t.Context(), t, watchURL+"100")
	if err != nil || response.StatusCode != http.StatusGone {
		t.Fatalf("the response to the watch is %v, %v, want 410", response, err)
	}
	content, _ := io.ReadAll(response.Body)
	if !strings.Contains(string(content), `"reason":"Expired"`) || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the response is %s", content)
	}
	a.watch(t)
}

// end reads a response until it ends, and returns the duration and the error.
func end(response *http.Response) (after time.Duration, err error) {
	started := time.Now()
	_, err = io.ReadAll(response.Body)
	return time.Since(started), err
}

func (a *api) restarts(t *testing.T, reason string) float64 {
	t.Helper()
	counter := &dto.Metric{}
	if err := a.transport.metrics.restarts.WithLabelValues(reason).Write(counter); err != nil {
		t.Fatal(err)
	}
	return counter.GetCounter().GetValue()
}

func (a *api) staleness(t *testing.T) float64 {
	t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "apikey_kubernetes_watch_staleness_seconds" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("the staleness is missing")
	return 0
}

func TestWatch_ListAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		watch := a.watch(t)
		go func() {
			for range 10 { // bookmarks
				time.Sleep(time.Minute)
				a.stream.sent <- nil
			}
			time.Sleep(time.Minute)
			a.stream.sent <- errPadding
		}()
		after, err := end(watch)
		if after != 13*time.Minute || err != nil {
			t.Errorf("the watch ended after %s with %v", after, err)
		}
		if got := a.staleness(t); got != 180 {
			t.Errorf("the staleness is %v", got)
		}
		a.assertMustList(t)
		if got := a.restarts(t, reasonSilent); got != 1 {
			t.Errorf("%v restarts were counted", got)
		}
	})
}

func TestWatch_FailsIfItDoesNotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		hanging := roundTripper(func(request *http.Request) (*http.Response, error) {
			if !isWatch(request.URL.Query()) {
				return a.RoundTrip(request)
			}
			<-request.Context().Done()
			return nil, request.Context().Err()
		})
		a.transport.next = hanging
		started := time.Now()
		_, err := a.get(t.Context(), t, watchURL+"100")
		if !errors.Is(err, errIdle) || time.Since(started) != 3*time.Minute {
			t.Errorf("the watch failed after %s with %v", time.Since(started), err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

func TestWatch_ListAfterOutage(t *testing.T) {
	reset := fmt.Errorf("read tcp: %w", syscall.ECONNRESET)
	for name, test := range map[string]struct {
		end        func(a *api)
		wantErr    error
		wantRelist bool
	}{
		"in time":                         {end: func(a *api) { a.stream.sent <- io.EOF }},
		"a broken connection":             {func(a *api) { a.stream.sent <- reset }, io.ErrUnexpectedEOF, false},
		"a closed connection":             {func(a *api) { a.stream.sent <- io.ErrUnexpectedEOF }, io.ErrUnexpectedEOF, false},
		"broken, then refused":            {func(a *api) { a.stream.sent <- reset; a.down = syscall.ECONNREFUSED }, io.ErrUnexpectedEOF, true},
		"a lost connection":               {func(a *api) { a.stream.sent <- errors.New("http2: client connection lost") }, io.ErrUnexpectedEOF, true},
		"in time, then refused":           {func(a *api) { a.stream.sent <- io.EOF; a.down = reset }, nil, true},
		"in time, then broken":            {func(a *api) { a.stream.sent <- io.EOF; a.down = io.EOF }, nil, true},
		"in time, then a timeout":         {func(a *api) { a.stream.sent <- io.EOF; a.down = os.ErrDeadlineExceeded }, nil, true},
		"in time, then a failing server":  {func(a *api) { a.stream.sent <- io.EOF; a.status = http.StatusBadGateway }, nil, true},
		"in time, then a starting server": {func(a *api) { a.stream.sent <- io.EOF; a.status = http.StatusForbidden }, nil, true},
		"in time, then a busy server":     {func(a *api) { a.stream.sent <- io.EOF; a.status = http.StatusTooManyRequests }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				watch := a.watch(t)
				go test.end(a)
				if _, err := end(watch); !errors.Is(err, test.wantErr) {
					t.Errorf("the watch ended with %v, want %v", err, test.wantErr)
				}
				synctest.Wait()
				if a.down != nil || a.status != http.StatusOK {
					response, err := a.get(t.Context(), t, watchURL+"100")
					if test.wantRelist && !watchesAgain(err) || !test.wantRelist && response.StatusCode != a.status {
						t.Errorf("the response to the watch is %v, %v", response, err)
					}
					a.down, a.status = nil, http.StatusOK
				}

				next := a.watch(t) // resumes the last one
				go a.stream.sendBookmarks(t.Context())
				ended := make(chan error, 1)
				go func() { _, err := end(next); ended <- err }()
				time.Sleep(4 * time.Minute)
				synctest.Wait()
				select {
				case err := <-ended:
					if !test.wantRelist || err != nil {
						t.Fatalf("the next watch ended with %v", err)
					}
					a.assertMustList(t)
				default:
					if test.wantRelist {
						t.Error("no list is required")
					}
				}
			})
		})
	}
}

// watchesAgain reports whether a Reflector watches again after an error of a watch, and does not list.
func watchesAgain(err error) bool {
	err = &url.Error{Op: "Get", URL: watchURL, Err: err}
	return utilnet.IsConnectionRefused(err) && !utilnet.IsProbableEOF(err) && !utilnet.IsTimeout(err)
}

func (s *stream) sendBookmarks(ctx context.Context) {
	for {
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return
		}
		select {
		case s.sent <- nil:
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

func TestWatch_DueListOutlivesAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		watch := a.watch(t)
		for range 20 {
			go func() { a.stream.sent <- errors.New("lost") }()
			if _, err := end(watch); errors.Is(err, io.ErrUnexpectedEOF) {
				time.Sleep(10 * time.Second)
			}
			response, err := a.get(t.Context(), t, watchURL+"100")
			if err != nil {
				t.Fatal(err)
			}
			if watch = response; response.StatusCode == http.StatusGone {
				a.watch(t)
				return
			}
		}
		t.Error("no list is required after watches that break")
	})
}

func TestWatch_ListAfterPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		watch := a.watch(t)
		go func() { a.stream.sent <- io.EOF }()
		_, _ = end(watch)
		time.Sleep(time.Hour)
		next := a.watch(t)
		go a.stream.sendBookmarks(t.Context())
		if after, err := end(next); after > 3*time.Minute || err != nil {
			t.Errorf("the next watch ended after %s with %v", after, err)
		}
		a.assertMustList(t)
	})
}

func TestWatchStarted_SpreadsLists(t *testing.T) {
	early, late := 0, 0
	for range 1000 {
		c := &collection{lastSeen: time.Now(), outage: true}
		wait, due := c.watchStarted(DefaultTimeouts())
		switch {
		case !due || wait < 0 || wait > 3*time.Minute:
			t.Fatalf("a list is due after %s (%t)", wait, due)
		case wait < time.Minute:
			early++
		case wait > 2*time.Minute:
			late++
		}
	}
	if early < 200 || late < 200 {
		t.Errorf("%d of 1000 list in the first minute, and %d in the last", early, late)
	}
}

func TestWatch_ListAfterOlderRevision(t *testing.T) {
	for name, test := range map[string]struct {
		current, seen string
		gone          bool
	}{
		"newer":            {"101", "100", false},
		"the same":         {"100", "100", false},
		"older":            {"99", "100", true},
		"beyond 64 bits":   {"99999999999999999999999", "100000000000000000000000", true},
		"from the start":   {"99", "0", false},
		"seen is empty":    {"99", "", false},
		"seen is invalid":  {"99", "abc", false},
		"current is empty": {"", "100", false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			a.revision = test.current
			response, err := a.get(t.Context(), t, watchURL+test.seen+"&labelSelector=a%3Db")
			if err != nil || (response.StatusCode == http.StatusGone) != test.gone {
				t.Fatalf("the response to the watch is %v, %v", response, err)
			}
			if a.queries[0] != "labelSelector=a%3Db&limit=1" {
				t.Errorf("the query for the revision is %q", a.queries[0])
			}
			if got := a.restarts(t, reasonOlderRevision); (got == 1) != test.gone {
				t.Errorf("%v restarts were counted", got)
			}
		})
	}
}

// The cache of an API server may lag, so no process may start with its state.
func TestInvariant9_ReadsAreConsistent(t *testing.T) {
	for query, want := range map[string]string{
		"limit=500&resourceVersion=0":                         "limit=500",
		"resourceVersion=7&resourceVersionMatch=NotOlderThan": "",
		"resourceVersion=7&resourceVersionMatch=Exact":        "resourceVersion=7&resourceVersionMatch=Exact",
		"continue=c&limit=500":                                "continue=c&limit=500",
		"watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersion=7&resourceVersionMatch=NotOlderThan": "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&watch=1",
		"watch=true&fieldSelector=metadata.name%3Dx&resourceVersion=7":                                                "watch=true&fieldSelector=metadata.name%3Dx&resourceVersion=7",
	} {
		a := newAPI()
		response, err := a.get(t.Context(), t, collectionURL+"?"+query)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := a.queries[len(a.queries)-1]; got != want || len(a.queries) != 1 {
			t.Errorf("%q is sent as %q", query, a.queries)
		}
	}
}

func TestCall_FailsIfTheResponsePauses(t *testing.T) {
	for name, method := range map[string]string{"a page": http.MethodGet, "a write": http.MethodPatch} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				a.transport.next = roundTripper(func(request *http.Request) (*http.Response, error) {
					a.stream = &stream{ctx: request.Context(), sent: make(chan error)}
					return &http.Response{StatusCode: http.StatusOK, Body: a.stream}, nil
				})
				request, err := http.NewRequestWithContext(t.Context(), method, collectionURL, nil)
				if err != nil {
					t.Fatal(err)
				}
				response, err := a.transport.RoundTrip(request)
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				go func() {
					for range 5 { // slowly, within the timeout
						time.Sleep(50 * time.Second)
						a.stream.sent <- nil
					}
				}()
				after, err := end(response)
				if after != 310*time.Second || !errors.Is(err, errIdle) {
					t.Errorf("it ended after %s with %v", after, err)
				}
			})
		})
	}
}

func TestWatch_CanceledWatchIsNotAnOutage(t *testing.T) {
	a := newAPI()
	ctx, cancel := context.WithCancel(t.Context())
	response, err := a.get(ctx, t, watchURL+"100")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := end(response); !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	a.down = context.Canceled
	if _, err := a.get(ctx, t, watchURL+"100"); !errors.Is(err, context.Canceled) {
		t.Errorf("the next one with %v", err)
	}
	a.down = nil
	a.watch(t)
	for _, c := range a.transport.collections {
		if c.outage || !c.relistAt.IsZero() {
			t.Error("a list is due")
		}
	}
}

// The console watches each key that it creates, for a moment.
func TestWatch_StoppedReflectorIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 { // the second resumes the first
			response, err := a.get(ctx, t, watchURL+"100&fieldSelector=metadata.name%3Dnew")
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
		}
		cancel()
		time.Sleep(time.Hour)
		a.watch(t)
		if staleness := a.staleness(t); staleness != 0 {
			t.Errorf("the staleness is %gs", staleness)
		}
		if count := len(a.transport.collections); count != 1 {
			t.Errorf("%d collections are kept", count)
		}
	})
}

// A Reflector that watches again logs nothing.
func TestWatch_LogsFailuresOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		var logged strings.Builder
		a.transport.log = slog.New(slog.NewTextHandler(&logged, nil))
		a.status = http.StatusForbidden
		for range 120 {
			if _, err := a.get(t.Context(), t, watchURL+"100"); !watchesAgain(err) {
				t.Fatalf("the watch failed with %v", err)
			}
			time.Sleep(time.Second)
		}
		const want = `level=WARN msg="The Kubernetes API cannot be watched: retrying" resource=apikeys ` +
			`err="the Kubernetes API responded 403 Forbidden: "`
		if strings.Count(logged.String(), want) != 2 || strings.Count(logged.String(), "\n") != 2 {
			t.Errorf("the log says %s", &logged)
		}
	})
}

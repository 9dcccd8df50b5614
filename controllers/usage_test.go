// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/usage"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/fakecache"
	"squirrel.dev/apikey-operator/test/framework/heap"
)

// cachedReader reads from a cache, and writes nothing.
type cachedReader struct {
	client.Client
	cache client.Reader
}

func (c cachedReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	return c.cache.Get(ctx, key, object, options...)
}

// BenchmarkCollect collects the uses of 100 000 tokens in the last minute. "recorded" is the usual case: each status has a use of the same
// day. "new" is the worst case: no status has a use.
func BenchmarkCollect(b *testing.B) {
	const count = 100_000
	for _, test := range []struct {
		name string
		last *metav1.Time
	}{
		{"recorded", new(metav1.Now())},
		{"new", nil},
	} {
		b.Run(test.name, func(b *testing.B) {
			keys, uses := make([]v1alpha1.APIKey, count), make([]usage.Use, count)
			for i := range keys {
				name := fmt.Sprintf("key-%06d", i)
				hash := token.Hash(name)
				keys[i] = v1alpha1.APIKey{
					ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: strconv.Itoa(i + 1)},
					Spec:       v1alpha1.APIKeySpec{AppName: name, ReadAccess: true},
					Status: v1alpha1.APIKeyStatus{Tokens: []v1alpha1.TokenRecord{{
						Hash: hash, Hint: "sq_abcd", NotBefore: new(metav1.Now()), LastUsedAt: test.last,
					}}},
				}
				uses[i] = usage.Use{Namespace: "shop", Name: name, Hash: hash}
			}
			reconciler := &APIKeyReconciler{
				Client: cachedReader{cache: fakecache.New(b, CacheOptions(), keys)}, Now: time.Now,
				CheckClock: func(context.Context) error { return nil }, used: make(chan event.GenericEvent, count),
			}
			collector := newTestCollector(b, reconciler, uses)
			for b.Loop() {
				begun := processorTime()
				collector.Collect(b.Context())
				b.ReportMetric((processorTime() - begun).Seconds(), "cpu-s/collection")
				if enqueued := len(reconciler.used); enqueued != count && test.last == nil || enqueued != 0 && test.last != nil {
					b.Fatalf("the collection enqueues %d keys", enqueued)
				}
				for len(reconciler.used) > 0 {
					<-reconciler.used
				}
				clear(reconciler.lastUses.byKey)
			}
		})
	}
}

// newTestCollector returns a collector of an authenticator that reports these uses.
func newTestCollector(t testing.TB, reconciler *APIKeyReconciler, uses []usage.Use) *UsageCollector {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = usage.Write(w, slices.Values(uses))
	}))
	t.Cleanup(server.Close)
	return newCollectorOf(t, reconciler, server.URL, slog.New(slog.DiscardHandler))
}

func newCollectorOf(t testing.TB, reconciler *APIKeyReconciler, address string, log *slog.Logger) *UsageCollector {
	t.Helper()
	endpoint, err := url.Parse(address)
	framework.Must(t, err)
	file := filepath.Join(t.TempDir(), "token")
	framework.Must(t, os.WriteFile(file, []byte("token\n"), 0o600))
	return NewUsageCollector(reconciler, UsageOptions{Endpoints: []*url.URL{endpoint}, TokenFile: file}, log)
}

// newReconcilerOf returns a reconciler that reads a key from its cache, and keeps the keys that NoteUse enqueues.
func newReconcilerOf(t testing.TB, key *v1alpha1.APIKey) *APIKeyReconciler {
	t.Helper()
	return &APIKeyReconciler{
		Client: cachedReader{cache: fakecache.New(t, CacheOptions(), []v1alpha1.APIKey{*key})}, Now: time.Now,
		CheckClock: func(context.Context) error { return nil }, used: make(chan event.GenericEvent, 10),
	}
}

func newUsedKey() *v1alpha1.APIKey {
	return &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a", ResourceVersion: "1"},
		Spec:       v1alpha1.APIKeySpec{AppName: "A", ReadAccess: true},
		Status: v1alpha1.APIKeyStatus{Tokens: []v1alpha1.TokenRecord{{
			Hash: token.Hash("a"), NotBefore: new(metav1.NewTime(time.Now().Add(-time.Hour))),
		}}},
	}
}

func TestCollect_VerifiesTheAuthenticatorAndSendsTheToken(t *testing.T) {
	var authorization atomic.Value
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization.Store(r.Header.Get("Authorization"))
		_ = usage.Write(w, slices.Values([]usage.Use{{Namespace: "shop", Name: "a", Hash: token.Hash("a"), Minutes: 7}}))
	}))
	t.Cleanup(server.Close)
	reconciler := newReconcilerOf(t, newUsedKey())
	now := time.Now()
	reconciler.Now = func() time.Time { return now }
	collector := newCollectorOf(t, reconciler, server.URL, slog.New(slog.DiscardHandler))
	collector.CAFile, collector.ServerName = filepath.Join(t.TempDir(), "ca.crt"), "example.com"
	framework.Must(t, os.WriteFile(collector.CAFile,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	collector.Collect(t.Context())
	if got := authorization.Load(); got != "Bearer token" {
		t.Errorf("the collector sends the authorization %v", got)
	}
	name := client.ObjectKey{Namespace: "shop", Name: "a"}
	if at := reconciler.lastUses.of(name, token.Hash("a")); !at.Equal(now.Add(-7 * time.Minute)) {
		t.Errorf("the last use is %s, %s ago", at, now.Sub(at))
	}
}

func TestCollect_RequestsOnlyWhatIsNewSinceTheLastSuccess(t *testing.T) {
	status, queries := http.StatusOK, []string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RequestURI())
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	reconciler := newReconcilerOf(t, newUsedKey())
	now := time.Now()
	reconciler.Now = func() time.Time { return now }
	collector := newCollectorOf(t, reconciler, server.URL, slog.New(slog.DiscardHandler))
	collector.Collect(t.Context())
	now = now.Add(time.Minute)
	status = http.StatusServiceUnavailable
	collector.Collect(t.Context())
	now = now.Add(time.Minute)
	status = http.StatusOK
	collector.Collect(t.Context())
	now = now.Add(-time.Hour) // the clock was set
	collector.Collect(t.Context())
	if want := []string{"/usage", "/usage?within=2", "/usage?within=3", "/usage"}; !slices.Equal(queries, want) {
		t.Errorf("the requests are %q, want %q", queries, want)
	}
}

func TestCollect_PendingUsesNeedLittleMemory(t *testing.T) {
	const count, maxPerKey = 10_000, 300
	keys, uses := make([]v1alpha1.APIKey, count), make([]usage.Use, count)
	for i := range keys {
		key := newUsedKey()
		key.Name = fmt.Sprintf("key-%06d", i)
		key.Status.Tokens[0].Hash = token.Hash(key.Name)
		keys[i] = *key
		uses[i] = usage.Use{Namespace: key.Namespace, Name: key.Name, Hash: key.Status.Tokens[0].Hash}
	}
	reconciler := newReconcilerOf(t, newUsedKey())
	reconciler.Client = cachedReader{cache: fakecache.New(t, CacheOptions(), keys)}
	reconciler.used = make(chan event.GenericEvent)
	collector := newTestCollector(t, reconciler, uses)
	go func() {
		for range reconciler.used { // no key is reconciled
		}
	}()
	defer close(reconciler.used)
	before := heap.Live()
	collector.Collect(t.Context())
	perKey := (heap.Live() - before) / count
	if pending := len(reconciler.lastUses.byKey); pending != count || perKey > maxPerKey {
		t.Errorf("%d uses are pending, and each needs %d bytes, want at most %d", pending, perKey, maxPerKey)
	}
	runtime.KeepAlive(uses)
}

func TestCollect_LogsFailuresAndNotesNothingItCannotDate(t *testing.T) {
	report := func(w http.ResponseWriter, _ *http.Request) {
		_ = usage.Write(w, slices.Values([]usage.Use{{Namespace: "shop", Name: "a", Hash: token.Hash("a")}}))
	}
	for _, test := range []struct {
		name    string
		respond http.HandlerFunc
		change  func(*UsageCollector)
		want    string
	}{
		{"the token is refused", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
			nil, `msg="Cannot collect the last uses of tokens from an authenticator; retrying" authenticator=ADDRESS ` +
				`err="the authenticator responded 403 Forbidden: no\n"`},
		{"the report is not JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
			nil, `err="the report of an authenticator cannot be read: jsontext: invalid character '<' at start of value"`},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://example.com/", http.StatusFound)
		},
			nil, `err="Get \"http://example.com/\": the authenticator redirected the request"`},
		{"the token cannot be read", report, func(c *UsageCollector) { c.TokenFile = "absent" },
			`err="read the ServiceAccount token: open absent: no such file or directory"`},
		{"the CA bundle cannot be read", report, func(c *UsageCollector) { c.CAFile = "absent" },
			`msg="Cannot connect to authenticators for the last uses of tokens; retrying" err="read the CA bundle: open absent: no such file or directory"`},
		{"the clock cannot be trusted", report,
			func(c *UsageCollector) {
				c.reconciler.CheckClock = func(context.Context) error { return errors.New("it is an hour ahead") }
			},
			`msg="Cannot date the last uses of tokens; retrying" err="it is an hour ahead"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(test.respond)
			t.Cleanup(server.Close)
			var logged bytes.Buffer
			reconciler := newReconcilerOf(t, newUsedKey())
			collector := newCollectorOf(t, reconciler, server.URL, slog.New(slog.NewTextHandler(&logged, nil)))
			if test.change != nil {
				test.change(collector)
			}
			collector.Collect(t.Context())
			want := strings.ReplaceAll(test.want, "ADDRESS", server.Listener.Addr().String())
			if !strings.Contains(logged.String(), want) {
				t.Errorf("the log is %s, want %s", logged.String(), want)
			}
			if len(reconciler.used) > 0 {
				t.Error("a use is noted")
			}
		})
	}
}

// processorTime returns the processor time that the process has used.
func processorTime() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

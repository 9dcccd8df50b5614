// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build load

package load_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	rotatedKeys       = 250
	rotationsPerKey   = 4
	rotatedNamespaces = 10

	// longOverlap is the overlap of half of the keys. That of the others is 0.
	longOverlap = 8 * time.Second

	// requestInterval is the interval of the requests of each client.
	requestInterval = 500 * time.Millisecond

	// switchBeforeEnd is how long before the end of its token a client that keeps it switches to the new one.
	switchBeforeEnd = 500 * time.Millisecond

	// endWithin bounds how long an authenticator may accept a token after a watch has shown its end. An end that was known before takes effect
	// at once.
	endWithin = bound

	// probeInterval is the pause between two requests with a token that has ended.
	probeInterval = 10 * time.Millisecond

	// seenWithin bounds the time until a watch shows what a client waits for.
	seenWithin = time.Minute
)

// TestInvariant4_NoRotationUnderLoadRefusesAValidRequest rotates keys whose clients send requests all the time. Of the two clients of a key,
// one switches to the new token as soon as a watch on the Secret shows it. The other one keeps the old token until shortly before its end.
func TestInvariant4_NoRotationUnderLoadRefusesAValidRequest(t *testing.T) {
	env := testenv.Start(t)
	address := binaries.FreeAddress(t)
	controller := startController(t, env)
	start(t, env, "authenticator", "--plaintext", "--listen-address="+address, "--grpc-listen-address=0")
	l := newRotationLoad(t, env, "http://"+address)
	l.issueAll()

	var clients, rotations sync.WaitGroup
	ctx, stopClients := context.WithCancel(t.Context())
	for _, key := range l.keys {
		clients.Go(func() { l.sendAsEagerClient(ctx, key) })
		clients.Go(func() { l.sendAsLateClient(ctx, key) })
	}
	started := time.Now()
	for _, key := range l.keys {
		rotations.Go(func() { l.rotate(key) })
	}
	rotations.Wait()
	took := time.Since(started)
	l.probes.Wait()
	stopClients()
	clients.Wait()
	l.expectNoFailures(controller)
	l.report(took)
}

// rotationLoad are keys that rotate while clients use them.
type rotationLoad struct {
	testing.TB
	env           *testenv.Env
	authenticator string
	http          *http.Client
	keys          map[client.ObjectKey]*rotatingKey
	probes        sync.WaitGroup // of superseded tokens

	requests, refused atomic.Int64

	mu      sync.Mutex
	arrived []time.Duration // from each request of a rotation until the Secret had the new token
	// tolerated has, by overlap, how long each superseded token was accepted after its end.
	tolerated map[time.Duration][]time.Duration
}

// rotatingKey is a key, as the watches of its clients show it.
type rotatingKey struct {
	client.ObjectKey
	overlap time.Duration

	mu      sync.Mutex
	newest  string // the token in the Secret
	status  v1alpha1.APIKeyStatus
	ends    map[string]time.Time // of superseded tokens, by hash
	changed chan struct{}        // closed at the next event
}

func newRotationLoad(t testing.TB, env *testenv.Env, authenticator string) *rotationLoad {
	t.Helper()
	l := &rotationLoad{
		TB: t, env: env, authenticator: authenticator,
		http:      &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 3 * rotatedKeys}},
		keys:      map[client.ObjectKey]*rotatingKey{},
		tolerated: map[time.Duration][]time.Duration{},
	}
	t.Cleanup(l.http.CloseIdleConnections)
	for i := range rotatedNamespaces {
		namespace := env.Namespace(t)
		for j := range rotatedKeys / rotatedNamespaces {
			key := &rotatingKey{
				ObjectKey: client.ObjectKey{Namespace: namespace, Name: fmt.Sprint("key-", j)},
				ends:      map[string]time.Time{}, changed: make(chan struct{}),
			}
			if (i+j)%2 == 0 {
				key.overlap = longOverlap
			}
			l.keys[key.ObjectKey] = key
		}
	}
	return l
}

// issueAll creates the keys and their watches, and returns when all are issued and the authenticator accepts them.
func (l *rotationLoad) issueAll() {
	l.Helper()
	l.watch(&corev1.SecretList{}, func(key *rotatingKey, object client.Object) {
		key.newest = string(object.(*corev1.Secret).Data["token"])
	})
	l.watch(&v1alpha1.APIKeyList{}, l.recordStatus)
	for _, key := range l.keys {
		framework.Must(l, l.env.Client.Create(l.Context(), testenv.NewKey(key.Namespace, key.Name, func(object *v1alpha1.APIKey) {
			object.Spec.Rotation = &v1alpha1.Rotation{Overlap: &metav1.Duration{Duration: key.overlap}}
		})))
	}
	for _, key := range l.keys {
		if !key.await(func() bool { return key.newest != "" }) {
			l.Fatalf("%s is not issued", key)
		}
		framework.Eventually(l, key.String()+" is accepted", func() bool {
			status, err := l.send(l.Context(), key, key.token())
			return err == nil && status == http.StatusOK
		})
	}
}

// watch records each event of a kind of object in the key that the object belongs to, until the test ends.
func (l *rotationLoad) watch(list client.ObjectList, record func(*rotatingKey, client.Object)) {
	l.Helper()
	framework.Must(l, l.env.Client.List(l.Context(), list))
	events := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		return l.env.Client.Watch(ctx, list, &client.ListOptions{Raw: &options})
	}}
	watcher, err := watchtools.NewRetryWatcherWithContext(l.Context(), list.GetResourceVersion(), events) // the API server ends slow watches
	framework.Must(l, err)
	l.Cleanup(watcher.Stop)
	go func() {
		for event := range watcher.ResultChan() {
			object, isObject := event.Object.(client.Object)
			if !isObject || event.Type == watch.Deleted {
				continue
			}
			name := client.ObjectKeyFromObject(object)
			if owner := metav1.GetControllerOf(object); owner != nil {
				name.Name = owner.Name
			}
			if key := l.keys[name]; key != nil {
				key.mu.Lock()
				record(key, object)
				close(key.changed)
				key.changed = make(chan struct{})
				key.mu.Unlock()
			}
		}
	}()
}

// recordStatus records the status of a key, and the ends of its tokens.
func (l *rotationLoad) recordStatus(key *rotatingKey, object client.Object) {
	key.status = object.(*v1alpha1.APIKey).Status
	for _, record := range key.status.Tokens {
		if _, known := key.ends[record.Hash]; !known && record.NotAfter != nil {
			key.ends[record.Hash] = record.NotAfter.Time
		}
	}
}

// await waits until a condition of what the watches have shown is true. It returns false after a timeout.
func (k *rotatingKey) await(condition func() bool) bool {
	timeout := time.After(seenWithin)
	for {
		k.mu.Lock()
		met, changed := condition(), k.changed
		k.mu.Unlock()
		if met {
			return true
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// token returns the token in the Secret, as the watch has shown it.
func (k *rotatingKey) token() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.newest
}

// end returns when a token ends, if the watch has shown that.
func (k *rotatingKey) end(of string) (end time.Time, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	end, known = k.ends[token.Hash(of)]
	return end, known
}

// pause waits for an interval or until the next event of the key. It returns false when the context is done.
func (k *rotatingKey) pause(ctx context.Context) bool {
	k.mu.Lock()
	changed := k.changed
	k.mu.Unlock()
	select {
	case <-changed:
	case <-time.After(requestInterval):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// rotate requests one rotation after the other, and waits until each is finished. It starts a probe of each superseded token.
func (l *rotationLoad) rotate(key *rotatingKey) {
	for range rotationsPerKey {
		former, requested := key.token(), time.Now()
		patch := fmt.Sprintf(`{"spec":{"rotation":{"request":{"at":%q}}}}`, requested.UTC().Format(time.RFC3339))
		object := testenv.NewKey(key.Namespace, key.Name)
		if err := l.env.Client.Patch(l.Context(), object, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			l.Error(err)
			return
		}
		if !key.await(func() bool { return key.newest != former }) {
			l.Errorf("the Secret of %s has no new token %s after the request", key, seenWithin)
			return
		}
		arrived := time.Since(requested)
		if !key.await(func() bool { _, ended := key.ends[token.Hash(former)]; return ended }) {
			l.Errorf("the rotation of %s is not finished", key)
			return
		}
		shown := time.Now()
		l.probes.Go(func() { l.probe(key, former, shown) })
		l.mu.Lock()
		l.arrived = append(l.arrived, arrived)
		l.mu.Unlock()
	}
}

// probe sends requests with a superseded token from its end on, until one is refused. If the overlap is 0, the token has ended before the
// watch has shown that.
func (l *rotationLoad) probe(key *rotatingKey, superseded string, shown time.Time) {
	end, _ := key.end(superseded)
	if shown.After(end) {
		end = shown
	}
	time.Sleep(time.Until(end))
	var accepted time.Duration
	for {
		sent := time.Since(end)
		status, err := l.send(l.Context(), key, superseded)
		if err != nil || sent > seenWithin {
			l.Errorf("a superseded token of %s was accepted %s after its end: %v", key, sent, err)
			return
		}
		if status == http.StatusUnauthorized {
			break
		}
		accepted = sent
		time.Sleep(probeInterval)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tolerated[key.overlap] = append(l.tolerated[key.overlap], accepted)
}

func (l *rotationLoad) sendAsEagerClient(ctx context.Context, key *rotatingKey) {
	for key.pause(ctx) {
		l.sendValid(ctx, key, key.token())
	}
}

func (l *rotationLoad) sendAsLateClient(ctx context.Context, key *rotatingKey) {
	current := key.token()
	for key.pause(ctx) {
		if end, known := key.end(current); known && time.Until(end) < switchBeforeEnd {
			current = key.token()
		}
		l.sendValid(ctx, key, current)
	}
}

// sendValid sends a request that must be granted, unless its token had ended before the response.
func (l *rotationLoad) sendValid(ctx context.Context, key *rotatingKey, current string) {
	status, err := l.send(ctx, key, current)
	responded := time.Now()
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		l.refused.Add(1)
		l.Error(err)
		return
	}
	l.requests.Add(1)
	if status == http.StatusOK {
		return
	}
	ended := key.await(func() bool { _, known := key.ends[token.Hash(current)]; return known })
	if end, _ := key.end(current); !ended || responded.Before(end) {
		l.refused.Add(1)
		l.Errorf("%s: a valid token was refused with %d, and it ends %s: %+v", key, status, end, key.status.Tokens)
	}
}

// send sends a check with a token, and returns the status of the response.
func (l *rotationLoad) send(ctx context.Context, key *rotatingKey, bearer string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.authenticator+"/auth/forward/"+key.Namespace, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("X-Forwarded-Method", http.MethodGet)
	request.Header.Set("X-API-Key", bearer)
	response, err := l.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func (l *rotationLoad) expectNoFailures(controller *operator.Built) {
	l.Helper()
	if refused := l.refused.Load(); refused != 0 {
		l.Errorf("%d of %d valid requests were refused", refused, l.requests.Load())
	}
	const want = rotatedKeys * rotationsPerKey
	if rotated := controller.Metric("apikey_rotated_total"); rotated != want {
		l.Errorf("%.0f tokens were rotated, want %d", rotated, want)
	}
	if reissued := controller.Metric("apikey_reissued_total"); reissued != 0 {
		l.Errorf("%.0f tokens were minted again, because their handover came too late", reissued)
	}
	for overlap, bound := range map[time.Duration]time.Duration{0: endWithin, longOverlap: 0} {
		if longest := slices.Max(l.tolerated[overlap]); longest > bound {
			l.Errorf("with an overlap of %s, a token was accepted %s after its end, want at most %s", overlap, longest, bound)
		}
	}
	for _, key := range l.keys {
		if apikey.NewestToken(&v1alpha1.APIKey{Status: key.status}).Hash != token.Hash(key.newest) {
			l.Errorf("the Secret of %s does not hold its newest token: %+v", key, key.status)
		}
	}
}

func (l *rotationLoad) report(took time.Duration) {
	l.Helper()
	slices.Sort(l.arrived)
	l.Logf("%d rotations of %d keys in %s: %.1f per second", len(l.arrived), len(l.keys), took.Round(100*time.Millisecond),
		float64(len(l.arrived))/took.Seconds())
	l.Logf("from a request of a rotation until the Secret had the new token: p50 %s, p99 %s", quantile(l.arrived, 0.5), quantile(l.arrived, 0.99))
	l.Logf("%d requests, %d valid ones refused", l.requests.Load(), l.refused.Load())
	for _, overlap := range []time.Duration{0, longOverlap} {
		l.Logf("overlap %s: %d superseded tokens, accepted for at most %s after their end",
			overlap, len(l.tolerated[overlap]), slices.Max(l.tolerated[overlap]))
	}
}

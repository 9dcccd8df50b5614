// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// requestedOverlap is the overlap of the rotations that are interrupted.
	requestedOverlap = 3 * time.Second

	// keysPerNamespace is the maximum number of keys in a namespace, so that none waits for the workers of the others.
	keysPerNamespace = 7
)

// interruption is a rotation whose controller stops before or after one of its calls.
type interruption struct {
	call string // the method and the kind of object
	// nth is the number of the call among those of this kind in the rotation, from 1.
	nth int
	// after is true if the API server executes the call, and the response is lost.
	after bool
	// prepare changes the Secret before the rotation. It may be nil.
	prepare func(*fixture, *corev1.Secret)
	// isReissued is true if the token of the interrupted rotation is lost, so that another one is minted.
	isReissued bool
	// arrival is when a call arrives that its controller sent before it was paused. By default, another controller has finished the rotation.
	arrival arrival
}

type arrival int

const (
	// beforeWrite: when another controller writes the status of the key for the first time.
	beforeWrite arrival = iota + 1
	// afterReveal: when another controller has finished the rotation, and a client has read the token and deleted the Secret.
	afterReveal
)

func deleteSecret(f *fixture, secret *corev1.Secret) {
	framework.Must(f, f.Env.Client.Delete(f.Context(), secret))
}

func makeImmutable(f *fixture, secret *corev1.Secret) {
	secret.Immutable = new(true)
	framework.Must(f, f.Env.Client.Update(f.Context(), secret))
}

// TestInvariant3_ARotationEndsAfterItsControllerStoppedAtAnyCall kills the process of the controller, or pauses it for longer than its lease.
// Another controller finishes the rotations. All the while, tokens are accepted.
func TestInvariant3_ARotationEndsAfterItsControllerStoppedAtAnyCall(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t) // the controllers of other tests would process these keys in the shared one
	authenticator := startAuthenticator(t, env.Config).Address("authenticator")

	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		r := newInterruptedRotations(t, env, authenticator, []interruption{
			{call: "GET secret", nth: 1},
			{call: "PUT status", nth: 1},
			{call: "PUT status", nth: 1, after: true, isReissued: true},
			{call: "GET key", nth: 1, isReissued: true},
			{call: "GET key", nth: 1, after: true, isReissued: true},
			{call: "GET secret", nth: 2, isReissued: true},
			{call: "PUT secret", nth: 1, isReissued: true},
			{call: "PUT secret", nth: 1, after: true},
			{call: "PUT status", nth: 2},
			{call: "PUT status", nth: 2, after: true},
			{call: "POST secret", nth: 1, prepare: deleteSecret, isReissued: true},
			{call: "POST secret", nth: 1, after: true, prepare: deleteSecret},
			{call: "DELETE secret", nth: 1, prepare: makeImmutable, isReissued: true},
			{call: "DELETE secret", nth: 1, after: true, prepare: makeImmutable, isReissued: true},
		})
		first := r.startController(r.interrupt)
		r.issue()
		r.rotate()
		first.Kill()
		r.stop(false)
		second := r.startController(r.letEarlierCallsArrive)
		r.assertRotated()
		r.assertNoTokenIn(first, second)
	})

	t.Run("paused until another controller leads", func(t *testing.T) {
		t.Parallel()
		r := newInterruptedRotations(t, env, authenticator, []interruption{
			{call: "GET secret", nth: 1},
			{call: "PUT status", nth: 1},
			{call: "PUT status", nth: 1, arrival: beforeWrite, isReissued: true},
			{call: "PUT status", nth: 1, after: true, isReissued: true},
			{call: "GET key", nth: 1, isReissued: true},
			{call: "GET secret", nth: 2, isReissued: true},
			{call: "PUT secret", nth: 1, isReissued: true},
			{call: "PUT secret", nth: 1, arrival: beforeWrite, isReissued: true},
			{call: "PUT secret", nth: 1, after: true},
			{call: "PUT status", nth: 2},
			{call: "PUT status", nth: 2, arrival: beforeWrite},
			{call: "POST secret", nth: 1, prepare: deleteSecret, isReissued: true},
			{call: "POST secret", nth: 1, arrival: beforeWrite, prepare: deleteSecret, isReissued: true},
			{call: "POST secret", nth: 1, arrival: afterReveal, prepare: deleteSecret, isReissued: true},
			{call: "DELETE secret", nth: 1, prepare: makeImmutable, isReissued: true},
			{call: "DELETE secret", nth: 1, arrival: beforeWrite, prepare: makeImmutable, isReissued: true},
		})
		elected := []string{"--leader-elect=true", "--system-namespace=" + r.fixtures[0].Namespace}
		first := r.startController(r.interrupt, elected...)
		r.issue()
		second := r.startController(r.letEarlierCallsArrive, elected...)
		r.rotate()
		first.Signal(syscall.SIGSTOP)
		r.assertRotated()
		r.stop(true)
		first.Signal(syscall.SIGCONT)
		if got := first.Exit(); got != "exit status 1" {
			t.Errorf("the paused controller: got %q, want %q", got, "exit status 1")
		}
		r.assertRotated()
		r.assertNoTokenIn(first, second)
	})
}

// interruptedRotations are keys that rotate while their controller stops, and what is known about them.
type interruptedRotations struct {
	testing.TB
	env           *testenv.Env
	authenticator string
	fixtures      []*fixture
	keys          []*interruptedKey

	// stopped is closed when the calls that were interrupted arrive, or are dropped.
	stopped chan struct{}
	arrive  bool // valid after stopped is closed

	mu     sync.Mutex
	armed  bool
	tokens map[string]string // by hash
}

// interruptedKey is a key whose rotation is interrupted.
type interruptedKey struct {
	interruption
	*fixture
	name          string
	former        string // the token before the rotation
	reached, done chan struct{}
	release       func() // lets the interrupted call arrive
	released      chan struct{}

	seen int // the number of calls of the kind that is interrupted
}

func newInterruptedRotations(t *testing.T, env *testenv.Env, authenticator string, interruptions []interruption) *interruptedRotations {
	t.Helper()
	r := &interruptedRotations{TB: t, env: env, authenticator: authenticator, stopped: make(chan struct{}), tokens: map[string]string{}}
	for i, interruption := range interruptions {
		if i%keysPerNamespace == 0 {
			r.fixtures = append(r.fixtures, newFixture(t, env))
		}
		key := &interruptedKey{
			interruption: interruption, fixture: r.fixtures[len(r.fixtures)-1],
			name:    fmt.Sprintf("%02d-%s-%d", i, strings.ReplaceAll(strings.ToLower(interruption.call), " ", "-"), interruption.nth),
			reached: make(chan struct{}), done: make(chan struct{}), released: make(chan struct{}),
		}
		key.release = sync.OnceFunc(func() { close(key.released) })
		r.keys = append(r.keys, key)
	}
	return r
}

// startController runs a controller for the namespaces of the keys, behind a proxy.
func (r *interruptedRotations) startController(intercept func(http.Handler) http.Handler, args ...string) *operator.Process {
	r.Helper()
	namespaces := make([]string, len(r.fixtures))
	for i, f := range r.fixtures {
		namespaces[i] = f.Namespace
	}
	api := startProxy(r, r.env.Config, intercept)
	controller := operator.StartController(r, api.config, append(args, "--namespaces="+strings.Join(namespaces, ","), "--log-level=debug")...)
	controller.Address("health")
	return controller
}

// issue waits until the controller has issued the keys, and the authenticator accepts them. From then on, it checks their tokens.
func (r *interruptedRotations) issue() {
	r.Helper()
	for _, key := range r.keys {
		key.CreateKey(key.name)
	}
	for _, key := range r.keys {
		key.WaitForReady(key.name, v1alpha1.ReasonIssued)
		key.former = key.tokenFrom(key.name+"-token", "token")
		r.recordToken(key.former)
		key.awaitStatus(r.authenticator, key.former, http.StatusOK)
		if key.prepare != nil {
			key.prepare(key.fixture, key.Secret(key.name+"-token"))
		}
	}
	r.startChecks()
}

// rotate requests the rotations, and returns when all of them are interrupted. Those that are interrupted first are requested last, because
// a call times out soon.
func (r *interruptedRotations) rotate() {
	r.Helper()
	r.mu.Lock()
	r.armed = true
	r.mu.Unlock()
	isBeforeClaim := func(key *interruptedKey) bool {
		return key.nth == 1 && (key.call == "GET secret" || key.call == "PUT status")
	}
	for _, first := range []bool{false, true} {
		for _, key := range r.keys {
			if isBeforeClaim(key) == first {
				key.requestRotation(key.name, requestedOverlap)
			}
		}
		for _, key := range r.keys {
			if isBeforeClaim(key) == first {
				framework.Receive(r, framework.Timeout, key.name+" is interrupted", key.reached)
			}
		}
	}
}

// requestRotation requests a rotation now.
func (f *fixture) requestRotation(name string, overlap time.Duration) {
	f.Helper()
	f.UpdateKey(name, func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{
			Request: &v1alpha1.RotationRequest{At: metav1.Now(), Overlap: &metav1.Duration{Duration: overlap}},
		}
	})
}

// interrupt holds the calls that are to be interrupted.
func (r *interruptedRotations) interrupt(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		key, isLater := r.interruptedBy(request)
		switch {
		case isLater:
			panic(http.ErrAbortHandler)
		case key == nil:
			forward.ServeHTTP(w, request)
			return
		}
		if key.after {
			forward.ServeHTTP(httptest.NewRecorder(), request)
		}
		late := request.Clone(context.WithoutCancel(request.Context()))
		late.Body = io.NopCloser(strings.NewReader(bodyOf(request)))
		go r.arriveLater(key, forward, late)
		close(key.reached)
		panic(http.ErrAbortHandler) // so that the call occupies no worker: rotations may use few of them
	})
}

// arriveLater executes the interrupted call when it is released, or drops it when the rotations stop.
func (r *interruptedRotations) arriveLater(key *interruptedKey, forward http.Handler, call *http.Request) {
	defer close(key.done)
	isReleased := false
	select {
	case <-r.stopped:
	case <-key.released:
		isReleased = true
	case <-r.Context().Done():
	}
	if !key.after && (isReleased || r.arrive) {
		forward.ServeHTTP(httptest.NewRecorder(), call)
	}
}

// interruptedBy returns the key whose rotation is interrupted at the request, or nil. It reports whether the rotation was interrupted
// earlier: the controller has stopped for this key then, although its process runs until all rotations are interrupted.
func (r *interruptedRotations) interruptedBy(request *http.Request) (interrupted *interruptedKey, isLater bool) {
	call, name := r.callOf(request)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range r.keys {
		switch {
		case !r.armed || key.name != name:
		case key.seen == key.nth:
			return nil, true
		case key.call == call:
			key.seen++
			if key.seen == key.nth {
				return key, false
			}
		}
	}
	return nil, false
}

// callOf returns the kind of a call, and the name of its key. It records the token of a Secret that is written.
func (r *interruptedRotations) callOf(request *http.Request) (call, name string) {
	path := strings.Split(strings.TrimPrefix(request.URL.Path, "/"), "/")
	last := path[len(path)-1]
	switch {
	case slices.Contains(path, "secrets"):
		if request.Method == http.MethodPost || request.Method == http.MethodPut {
			written, err := runtime.Decode(clientgoscheme.Codecs.UniversalDeserializer(), []byte(bodyOf(request)))
			if err != nil {
				r.Error(err)
				return "", ""
			}
			secret := written.(*corev1.Secret)
			r.recordToken(string(secret.Data["token"]))
			last = secret.Name
		}
		return request.Method + " secret", strings.TrimSuffix(last, "-token")
	case last == "status":
		return request.Method + " status", path[len(path)-2]
	default:
		return request.Method + " key", last
	}
}

func (r *interruptedRotations) recordToken(plaintext string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[token.Hash(plaintext)] = plaintext
}

// letEarlierCallsArrive lets the interrupted calls arrive that precede the first write of the status by another controller.
func (r *interruptedRotations) letEarlierCallsArrive(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		call, name := r.callOf(request)
		for _, key := range r.keys {
			if call == "PUT status" && key.name == name && key.arrival == beforeWrite {
				key.release()
				<-key.done
			}
		}
		forward.ServeHTTP(w, request)
	})
}

// stop drops the interrupted calls, or lets them arrive, and returns when that is done.
func (r *interruptedRotations) stop(arrive bool) {
	r.Helper()
	for _, key := range r.keys {
		if key.arrival == afterReveal {
			deleteSecret(key.fixture, key.Secret(key.name+"-token"))
		}
	}
	r.arrive = arrive
	close(r.stopped)
	for _, key := range r.keys {
		framework.Receive(r, framework.Timeout, "the call of "+key.name+" has ended", key.done)
	}
}

// assertRotated waits until all rotations have ended, and checks their results.
func (r *interruptedRotations) assertRotated() {
	r.Helper()
	for _, key := range r.keys {
		var current *v1alpha1.APIKey
		framework.EventuallyWithin(r, takeover, framework.PollInterval, key.name+" is rotated", func() bool {
			current = key.GetKey(key.name)
			return apikey.NewestToken(current).Hash != token.Hash(key.former) && apikey.ClaimOf(current) == nil &&
				current.Status.ObservedGeneration == current.Generation
		})
		key.awaitStatus(r.authenticator, key.former, http.StatusUnauthorized)
		r.assertRecords(key, current)
		r.assertEvent(key)
	}
}

// assertRecords checks that the key has one new token, which its Secret has, and another one only if the first one is lost.
func (r *interruptedRotations) assertRecords(key *interruptedKey, current *v1alpha1.APIKey) {
	r.Helper()
	ready := current.Status.Conditions
	if handled := current.Status.RotationHandled; handled == nil || !handled.Time.Equal(current.Spec.Rotation.Request.At.Time) {
		key.Errorf("%s: rotationHandled is %v, want %v", key.name, handled, current.Spec.Rotation.Request.At)
	}
	if len(ready) != 2 || ready[0].Status != metav1.ConditionTrue || ready[0].Reason != v1alpha1.ReasonIssued {
		key.Errorf("%s: the conditions are %v", key.name, ready)
	}
	lost := 0
	for _, record := range current.Status.Tokens[1:] {
		switch {
		case record.Hash == token.Hash(key.former):
		case record.ClaimedAt != nil && record.NotAfter.After(time.Now().Add(50*time.Minute)):
			lost++
		default:
			key.Errorf("%s: the status has the token %v", key.name, record)
		}
	}
	if isReissued := lost == 1; lost > 1 || isReissued != key.isReissued {
		key.Errorf("%s has %d lost tokens, want one: %t", key.name, lost, key.isReissued)
	}
	secret := key.Secret(key.name + "-token")
	switch hash := apikey.NewestToken(current).Hash; {
	case secret == nil:
		key.Errorf("%s has no Secret", key.name)
	case key.arrival == afterReveal: // the Secret may hold the lost token
	case token.Hash(string(secret.Data["token"])) != hash:
		key.Errorf("the Secret of %s does not hold the newest token", key.name)
	}
}

// assertEvent checks that an event reports a second token.
func (r *interruptedRotations) assertEvent(key *interruptedKey) {
	r.Helper()
	if !key.isReissued {
		if got := key.eventsOf(key.name); slices.Contains(got, "Reissued") {
			key.Errorf("%s has the events %v", key.name, got)
		}
		return
	}
	framework.Eventually(r, key.name+" has the event Reissued", func() bool { return slices.Contains(key.eventsOf(key.name), "Reissued") })
}

// startChecks checks, until the test ends, that the authenticator accepts the token in each Secret, and each former token until its end.
func (r *interruptedRotations) startChecks() {
	r.Helper()
	ended := make(chan struct{})
	var checking sync.WaitGroup
	checking.Go(func() {
		for !r.Failed() {
			for _, f := range r.fixtures {
				r.checkTokens(f)
			}
			select {
			case <-ended:
				return
			case <-time.After(25 * framework.PollInterval):
			}
		}
	})
	r.Cleanup(func() {
		close(ended)
		checking.Wait()
	})
}

// checkTokens checks the tokens in the Secrets of a namespace, and then the former ones.
func (r *interruptedRotations) checkTokens(f *fixture) {
	secrets, keys := &corev1.SecretList{}, &v1alpha1.APIKeyList{}
	if err := r.env.Client.List(r.Context(), secrets, client.InNamespace(f.Namespace)); err != nil {
		r.fail(err)
		return
	}
	for i := range secrets.Items {
		r.expectAccepted(f, secrets.Items[i].Name, string(secrets.Items[i].Data["token"]))
	}
	accepted := map[string]int{}
	for _, key := range r.keys {
		if key.fixture == f {
			status, err := check(http.DefaultClient, r.authenticator, f.Namespace, key.former)
			r.fail(err)
			accepted[key.name] = status
		}
	}
	now := time.Now()
	if err := r.env.Client.List(r.Context(), keys, client.InNamespace(f.Namespace)); err != nil {
		r.fail(err)
		return
	}
	for _, key := range r.keys {
		at := slices.IndexFunc(keys.Items, func(current v1alpha1.APIKey) bool { return current.Name == key.name })
		if key.fixture != f || at < 0 {
			continue
		}
		for _, record := range keys.Items[at].Status.Tokens {
			isAccepted := record.NotAfter == nil || now.Before(record.NotAfter.Time)
			if record.Hash == token.Hash(key.former) && isAccepted && accepted[key.name] != http.StatusOK {
				r.Errorf("%s: got status %d for the former token, which ends at %v", key.name, accepted[key.name], record.NotAfter)
			}
		}
	}
}

func (r *interruptedRotations) expectAccepted(f *fixture, secret, plaintext string) {
	if status, err := check(http.DefaultClient, r.authenticator, f.Namespace, plaintext); err != nil || status != http.StatusOK {
		r.Errorf("got status %d (%v) for the token in the Secret %s, want 200", status, err, secret)
	}
}

// fail fails the test if err is not nil, unless the test has ended.
func (r *interruptedRotations) fail(err error) {
	if err != nil && r.Context().Err() == nil {
		r.Error(err)
	}
}

// assertNoTokenIn checks that the logs of processes, the keys and the events contain no token.
func (r *interruptedRotations) assertNoTokenIn(processes ...*operator.Process) {
	r.Helper()
	recorded := places{}
	for i, process := range processes {
		recorded[fmt.Sprintf("log of controller %d", i+1)] = []byte(process.Output())
	}
	for _, f := range r.fixtures {
		recorded["objects in "+f.Namespace] = []byte(f.kubectl("get", "apikeys,events", "--output=json", "--show-managed-fields"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tokens) < 2*len(r.keys) {
		r.Errorf("the test knows %d tokens, want those before and after each rotation", len(r.tokens))
	}
	if diff := cmp.Diff(map[string][]string{}, recorded.search(r.tokens)); diff != "" {
		r.Errorf("places with tokens (-want +got):\n%s", diff)
	}
}

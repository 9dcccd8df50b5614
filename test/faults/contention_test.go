// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	contenders = 50

	// takeover bounds the wait for another leader. The lease of a stopped leader expires after 15 seconds.
	takeover = 2 * time.Minute

	// pollInterval is long, because each poll lists all contenders.
	pollInterval = time.Second
)

// TestInvariant2_OneActiveKeyWhenALeaderIsStoppedBeforeItsClaimIsWritten stops the leader when it has decided that a key may have its app
// name, and delays the write of that claim. Another controller becomes the leader. Then the delayed write arrives.
func TestInvariant2_OneActiveKeyWhenALeaderIsStoppedBeforeItsClaimIsWritten(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t) // the controllers of other tests would process these keys in the shared one
	for _, test := range []struct {
		name string
		// stop is the signal that stops the leader.
		stop syscall.Signal
		// arrivesBeforeSuccessorsClaim makes the delayed write arrive just before the successor writes its own claim. Otherwise it arrives
		// after the successor has issued a key.
		arrivesBeforeSuccessorsClaim bool
	}{
		{name: "SIGSTOP and SIGCONT after the successor issues a key", stop: syscall.SIGSTOP},
		{name: "SIGSTOP and SIGCONT before the successor claims", stop: syscall.SIGSTOP, arrivesBeforeSuccessorsClaim: true},
		{name: "SIGKILL", stop: syscall.SIGKILL},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newContention(t, env, test.stop)
			c.startLeader()
			c.startSuccessor(test.arrivesBeforeSuccessorsClaim)
			c.createContenders()
			framework.Receive(t, takeover, "the leader is stopped", c.leaderStopped)
			if !test.arrivesBeforeSuccessorsClaim {
				c.awaitOneHolder()
				c.continueLeader()
			}
			framework.Receive(t, takeover, "the delayed write has arrived", c.delayedWriteArrived)
			wantExit := map[syscall.Signal]string{syscall.SIGSTOP: "exit status 1", syscall.SIGKILL: "signal: killed"}[test.stop]
			if got := c.leader.Exit(); got != wantExit {
				t.Errorf("the first leader: got %q, want %q", got, wantExit)
			}
			holder := c.awaitOneHolder()
			c.assertOneHandover(holder)
		})
	}
}

// contention is a namespace whose keys all have the same app name, and two controllers.
type contention struct {
	*testenv.Fixture
	stop   syscall.Signal
	leader *operator.Process

	leaderStopped       chan struct{}
	leaderContinued     chan struct{}
	delayedWriteArrived chan struct{}
	continueOnce        sync.Once
}

func newContention(t *testing.T, env *testenv.Env, stop syscall.Signal) *contention {
	t.Helper()
	return &contention{
		Fixture: testenv.NewFixture(t, env), stop: stop,
		leaderStopped:       make(chan struct{}),
		leaderContinued:     make(chan struct{}),
		delayedWriteArrived: make(chan struct{}),
	}
}

// startElected starts a controller with leader election, behind a proxy.
func (c *contention) startElected(intercept func(http.Handler) http.Handler) *operator.Process {
	api := startProxy(c, c.Env.Config, func(forward http.Handler) http.Handler { return intercept(c.restrictToNamespace(forward)) })
	return operator.StartController(c, api.config, "--leader-elect=true", "--system-namespace="+c.Namespace)
}

// restrictToNamespace hides the keys of parallel subtests from a controller.
func (c *contention) restrictToNamespace(forward http.Handler) http.Handler {
	group := "/apis/" + v1alpha1.GroupVersion.String()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == group+"/apikeys" {
			r.URL.Path = group + "/namespaces/" + c.Namespace + "/apikeys"
		}
		forward.ServeHTTP(w, r)
	})
}

// startLeader starts the controller that is stopped when it writes its first claim.
func (c *contention) startLeader() {
	c.Helper()
	var first sync.Once
	c.leader = c.startElected(func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isClaim(r) {
				first.Do(func() {
					c.leader.Signal(c.stop)
					close(c.leaderStopped)
					<-c.leaderContinued
					defer close(c.delayedWriteArrived)
					forward.ServeHTTP(w, r)
				})
				return
			}
			forward.ServeHTTP(w, r)
		})
	})
	framework.Eventually(c, "a leader is elected", func() bool {
		leases := &coordinationv1.LeaseList{}
		framework.Must(c, c.Env.Client.List(c.Context(), leases, client.InNamespace(c.Namespace)))
		return len(leases.Items) == 1 && ptr.Deref(leases.Items[0].Spec.HolderIdentity, "") != ""
	})
}

// startSuccessor starts the controller that becomes the next leader. With leaderGoesFirst, the leader's delayed write precedes its claim.
func (c *contention) startSuccessor(leaderGoesFirst bool) {
	c.Helper()
	successor := c.startElected(func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if leaderGoesFirst && isClaim(r) {
				c.continueLeader()
				<-c.delayedWriteArrived
			}
			forward.ServeHTTP(w, r)
		})
	})
	c.Cleanup(c.continueLeader) // so that a failed test ends
	successor.Address("health")
}

func (c *contention) continueLeader() {
	c.continueOnce.Do(func() {
		if c.stop == syscall.SIGSTOP {
			c.leader.Signal(syscall.SIGCONT)
		}
		close(c.leaderContinued)
	})
}

// isClaim reports whether a request writes a claim to a status.
func isClaim(r *http.Request) bool {
	if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/status") {
		return false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return bytes.Contains(body, []byte(`"claimedAt":"`))
}

func (c *contention) createContenders() {
	c.Helper()
	var creations sync.WaitGroup
	for i := range contenders {
		creations.Go(func() {
			key := c.Key(fmt.Sprintf("key-%03d", i), func(key *v1alpha1.APIKey) { key.Spec.AppName = "Frontend App" })
			if err := c.Env.Client.Create(c.Context(), key); err != nil {
				c.Error(err)
			}
		})
	}
	creations.Wait()
}

// awaitOneHolder waits until one key is issued and all others report its conflict, and returns its name.
func (c *contention) awaitOneHolder() string {
	c.Helper()
	var holder string
	framework.EventuallyWithin(c, takeover, pollInterval, "one key is issued and all others are stalled", func() bool {
		keys := c.Keys()
		for i := range keys {
			if apikey.IsIssued(&keys[i]) {
				holder = keys[i].Name
			}
		}
		message := fmt.Sprintf(`App name "Frontend App" is held by APIKey %q: deactivate or delete that key, or create this one with another app name.`, holder)
		issued, stalled := 0, 0
		for i := range keys {
			condition := meta.FindStatusCondition(keys[i].Status.Conditions, v1alpha1.ConditionStalled)
			switch {
			case apikey.IsIssued(&keys[i]):
				issued++
			case condition != nil && condition.Message == message:
				stalled++
			}
		}
		return issued == 1 && stalled == contenders-1
	})
	return holder
}

// assertOneHandover checks that one token exists, that of the holder.
func (c *contention) assertOneHandover(holder string) {
	c.Helper()
	secrets := &corev1.SecretList{}
	framework.Must(c, c.Env.Client.List(c.Context(), secrets, client.InNamespace(c.Namespace), client.MatchingFields{"type": string(v1alpha1.SecretTypeToken)}))
	if len(secrets.Items) != 1 || secrets.Items[0].Name != holder+"-token" {
		c.Fatalf("got %d Secrets, want one, of %s", len(secrets.Items), holder)
	}
	for _, key := range c.Keys() {
		switch {
		case key.Name != holder && (apikey.IsClaimed(&key) || key.Status.SecretName != ""):
			c.Errorf("%s has a token, although %s is issued", key.Name, holder)
		case key.Name == holder && key.Status.Tokens[0].Hash != token.Hash(string(secrets.Items[0].Data["token"])):
			c.Errorf("the Secret of %s has another token than its status", holder)
		}
	}
}

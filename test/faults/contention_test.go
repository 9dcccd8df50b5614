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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

	// takeover bounds the wait for what comes after a leader was stopped: its lease has to end first, after 15 seconds.
	takeover = 2 * time.Minute

	// seldom is how often all contenders are read while waiting.
	seldom = time.Second
)

// TestInvariant2_OneActiveKeyWhenTheLeaderIsStoppedBetweenSettlingAndWriting stops the leader when it has settled that a key may have
// its name, and holds the write that says so. Another controller takes over; then the write arrives after all.
func TestInvariant2_OneActiveKeyWhenTheLeaderIsStoppedBetweenSettlingAndWriting(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t) // in the shared one, the controllers of other tests would settle what is contended here
	for _, test := range []struct {
		name string
		// stop is what happens to the leader.
		stop syscall.Signal
		// arrivesBeforeTheOthersClaim is true when the held write arrives as the other controller is about to make its own claim, and
		// false when it arrives after all is settled.
		arrivesBeforeTheOthersClaim bool
	}{
		{name: "SIGSTOP and SIGCONT after all is settled", stop: syscall.SIGSTOP},
		{name: "SIGSTOP and SIGCONT before the other claims", stop: syscall.SIGSTOP, arrivesBeforeTheOthersClaim: true},
		{name: "SIGKILL", stop: syscall.SIGKILL},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newContention(t, env, test.stop)
			c.startLeader()
			c.startOther(test.arrivesBeforeTheOthersClaim)
			c.createContenders()
			awaitWithin(t, takeover, "the leader is stopped", c.leaderIsStopped)
			if !test.arrivesBeforeTheOthersClaim {
				c.awaitOneHolder()
				c.continueLeader()
			}
			awaitWithin(t, takeover, "the held write has arrived", c.heldWriteHasArrived)
			wantExit := map[syscall.Signal]string{syscall.SIGSTOP: "exit status 1", syscall.SIGKILL: "signal: killed"}[test.stop]
			if got := c.leader.Exit(); got != wantExit {
				t.Errorf("the former leader ends with %q, want %q", got, wantExit)
			}
			holder := c.awaitOneHolder()
			c.assertOneHandover(holder)
		})
	}
}

// contention is a namespace whose keys all want one app name, and two controllers.
type contention struct {
	*testenv.Fixture
	stop   syscall.Signal
	leader *operator.Process

	leaderIsStopped     chan struct{}
	leaderContinues     chan struct{}
	heldWriteHasArrived chan struct{}
	continueOnce        sync.Once
}

func newContention(t *testing.T, env *testenv.Env, stop syscall.Signal) *contention {
	t.Helper()
	return &contention{
		Fixture: testenv.NewFixture(t, env), stop: stop,
		leaderIsStopped:     make(chan struct{}),
		leaderContinues:     make(chan struct{}),
		heldWriteHasArrived: make(chan struct{}),
	}
}

func (c *contention) startElected(intercept func(http.Handler) http.Handler) *operator.Process {
	api := startProxy(c, c.Env.Config, func(forward http.Handler) http.Handler { return intercept(c.withinItsNamespace(forward)) })
	return operator.StartController(c, api.config, "--leader-elect=true", "--system-namespace="+c.Namespace)
}

// withinItsNamespace hides from a controller the keys of other contentions.
func (c *contention) withinItsNamespace(forward http.Handler) http.Handler {
	group := "/apis/" + v1alpha1.GroupVersion.String()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == group+"/apikeys" {
			r.URL.Path = group + "/namespaces/" + c.Namespace + "/apikeys"
		}
		forward.ServeHTTP(w, r)
	})
}

// startLeader starts the controller that is stopped at its first claim.
func (c *contention) startLeader() {
	c.Helper()
	var first sync.Once
	c.leader = c.startElected(func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isClaim(r) {
				first.Do(func() {
					c.leader.Signal(c.stop)
					close(c.leaderIsStopped)
					<-c.leaderContinues
					defer close(c.heldWriteHasArrived)
					forward.ServeHTTP(w, r)
				})
				return
			}
			forward.ServeHTTP(w, r)
		})
	})
	framework.Eventually(c, "there is a leader", func() bool {
		leases := &coordinationv1.LeaseList{}
		framework.Must(c, c.Env.Client.List(c.Context(), leases, client.InNamespace(c.Namespace)))
		return len(leases.Items) == 1 && ptr.Deref(leases.Items[0].Spec.HolderIdentity, "") != ""
	})
}

// startOther starts the controller that takes over. When it is told to, it lets the leader's held write go first.
func (c *contention) startOther(leaderGoesFirst bool) {
	c.Helper()
	other := c.startElected(func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if leaderGoesFirst && isClaim(r) {
				c.continueLeader()
				<-c.heldWriteHasArrived
			}
			forward.ServeHTTP(w, r)
		})
	})
	c.Cleanup(c.continueLeader) // a failed test waits for nobody
	other.Address("health")
}

func (c *contention) continueLeader() {
	c.continueOnce.Do(func() {
		if c.stop == syscall.SIGSTOP {
			c.leader.Signal(syscall.SIGCONT)
		}
		close(c.leaderContinues)
	})
}

// isClaim says whether a call writes the hash of a token that is not handed over yet.
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
			if err := c.Env.Client.Create(c.Context(), &v1alpha1.APIKey{
				ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: fmt.Sprintf("key-%03d", i)},
				Spec:       v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true},
			}); err != nil {
				c.Error(err)
			}
		})
	}
	creations.Wait()
}

func (c *contention) keys() []v1alpha1.APIKey {
	c.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(c, c.Env.Client.List(c.Context(), keys, client.InNamespace(c.Namespace)))
	return keys.Items
}

// awaitOneHolder waits until one key is issued and all others are stalled with its name, and returns its name.
func (c *contention) awaitOneHolder() string {
	c.Helper()
	var holder string
	framework.EventuallyWithin(c, takeover, seldom, "one key holds the name, and all others say so", func() bool {
		keys := c.keys()
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
		c.Fatalf("%d tokens were handed over", len(secrets.Items))
	}
	for _, key := range c.keys() {
		switch {
		case key.Name != holder && (apikey.IsClaimed(&key) || key.Status.SecretName != ""):
			c.Errorf("%s has a token beside the holder %s", key.Name, holder)
		case key.Name == holder && key.Status.Tokens[0].Hash != token.Hash(string(secrets.Items[0].Data["token"])):
			c.Error("the holder's Secret has another token than its status says")
		}
	}
}

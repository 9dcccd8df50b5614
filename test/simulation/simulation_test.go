// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework/testenv"
	"squirrel.dev/apikey-operator/webhook/authn"
)

var (
	seeds    = flag.Uint64("seeds", 250, "the number of runs")
	first    = flag.Uint64("first", 1, "the seed of the first run")
	duration = flag.Duration("for", 0, "the time after which no further run starts, or 0 for no limit")
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // the heap is small, and most of it is garbage after each run
	flag.Parse()
	testenv.Main(m)
}

// TestSchedules makes one run for each seed, and reports the first violation of an invariant.
func TestSchedules(t *testing.T) {
	c := &campaign{next: *first, last: *first + *seeds - 1, started: time.Now()}
	t.Cleanup(func() { t.Log(c.summary()) })
	for worker := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			for seed, ok := c.begin(); ok; seed, ok = c.begin() {
				s := runChoices(t, newChoices(seed), false)
				if isFirst := c.end(s); isFirst {
					t.Errorf("seed %d violates %s", seed, s.violation) // before the history, which takes longer
					t.Logf("in short:\n%s", shortHistory(t, s))
				}
			}
		})
	}
}

// campaign is a series of runs, which ends at the first violation.
type campaign struct {
	started time.Time

	mutex      sync.Mutex
	next, last uint64 // seeds
	violated   bool
	runs       int
	counts     counts
}

// begin returns the next seed, or false if no further run must start.
func (c *campaign) begin() (seed uint64, ok bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.violated || c.next > c.last || (*duration > 0 && time.Since(c.started) > *duration) {
		return 0, false
	}
	c.next++
	return c.next - 1, true
}

// end counts a run, and reports whether it is the first one with a violation.
func (c *campaign) end(s *simulation) (isFirstViolation bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.runs++
	c.counts.add(s.counts)
	isFirstViolation = s.violation != nil && !c.violated
	c.violated = c.violated || isFirstViolation
	return isFirstViolation
}

func (c *campaign) summary() string {
	elapsed := time.Since(c.started)
	return fmt.Sprintf("%d runs from seed %d on, in %s (%.0f a second): "+
		"%d events, %d requests, %d failed requests, %d disturbances, %d actions of clients",
		c.runs, *first, elapsed.Round(time.Second), float64(c.runs)/elapsed.Seconds(),
		c.counts.events, c.counts.requests, c.counts.faults, c.counts.disturbances, c.counts.actions)
}

// runChoices makes a run in a bubble.
func runChoices(t *testing.T, c choices, recording bool) *simulation {
	t.Helper()
	var s *simulation
	synctest.Test(t, func(*testing.T) {
		s = newSimulation(c, recording)
		s.run()
	})
	return s
}

// shortHistory returns the history of the shortest run found that violates the same invariant.
func shortHistory(t *testing.T, s *simulation) string {
	t.Helper()
	made := shrink(s.made, s.violation.invariant, func(replay []uint16) string {
		if again := runChoices(t, choices{replay: replay}, false); again.violation != nil {
			return again.violation.invariant
		}
		return ""
	})
	return strings.Join(runChoices(t, choices{replay: made}, true).history, "\n")
}

func TestASeedRepeatsItsRun(t *testing.T) {
	for seed := range uint64(50) {
		one, other := runChoices(t, newChoices(seed), true), runChoices(t, newChoices(seed), true)
		if !slices.Equal(one.history, other.history) {
			t.Fatalf("seed %d has two histories:\n%s\n\n%s", seed, strings.Join(one.history, "\n"), strings.Join(other.history, "\n"))
		}
		if replay := runChoices(t, choices{replay: one.made}, true); !slices.Equal(one.history, replay.history) {
			t.Fatalf("the choices of seed %d have another history", seed)
		}
	}
}

func TestAKeyIsIssuedAndAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(choices{}, true) // nothing disturbs it
		s.after(time.Second, func() {
			s.create(&v1alpha1.APIKey{
				ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "key"},
				Spec:       v1alpha1.APIKeySpec{AppName: "shop", WriteAccess: true},
			})
		})
		s.run()
		if s.violation != nil || len(s.tokens) != 1 {
			t.Fatalf("%d tokens were minted:\n%s", len(s.tokens), strings.Join(s.history, "\n"))
		}
		request := authn.Request{Namespace: "a", Credential: s.tokens[0].credential, Access: authn.Write}
		if verdict := s.authenticators[0].decider.Decide(request); verdict.Decision != authn.Granted {
			t.Errorf("the token is %s (%s)", verdict.Decision, verdict.Reason)
		}
	})
}

func TestShrink(t *testing.T) {
	made := []uint16{9, 9, 9, 4, 9, 9, 9, 7, 9, 9}
	got := shrink(made, "4 before 7", func(replay []uint16) string {
		four := slices.Index(replay, 4)
		if four < 0 || !slices.Contains(replay[four:], 7) || replay[0] == 4 {
			return ""
		}
		return "4 before 7"
	})
	if want := []uint16{0, 4, 7}; !slices.Equal(got, want) {
		t.Errorf("the shortest choices are %v, want %v", got, want)
	}
}

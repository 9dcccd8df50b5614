// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

var (
	seeds = flag.Uint64("seeds", 1000, "the number of runs")
	first = flag.Uint64("first", 1, "the seed of the first run")
)

func TestSchedules(t *testing.T) {
	var next, failed atomic.Uint64
	for worker := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			for failed.Load() == 0 {
				seed := *first + next.Add(1) - 1
				if seed >= *first+*seeds {
					return
				}
				if s := runSeed(t, newChoices(seed), false); s.violation != nil && failed.CompareAndSwap(0, seed) {
					report(t, seed, s)
				}
			}
		})
	}
}

// runSeed makes a run in a bubble.
func runSeed(t *testing.T, c choices, recording bool) (s *simulation) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { s = simulate(c, recording) })
	return s
}

// report prints the violation, and the shortest history that violates the same invariant.
func report(t *testing.T, seed uint64, s *simulation) {
	t.Helper()
	t.Errorf("seed %d violates %s", seed, s.violation)
	made := shrink(s.made, s.violation.invariant, func(replay []uint16) string {
		if again := runSeed(t, choices{replay: replay}, false); again.violation != nil {
			return again.violation.invariant
		}
		return ""
	})
	shortest := runSeed(t, choices{replay: made}, true)
	t.Logf("in short:\n%s", strings.Join(shortest.history, "\n"))
}

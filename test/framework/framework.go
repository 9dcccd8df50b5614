// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package framework holds the helpers of all test suites. Its subpackages start a Kubernetes API (testenv), a cluster of one node
// (testnode) and processes of the operator (operator).
package framework

import (
	"math"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// Timeout bounds [Eventually]. After an outage, clients of the Kubernetes API may wait for half a minute before they try again.
	Timeout = time.Minute

	// PollInterval is the first interval of [Eventually]. It grows, because each poll of the Kubernetes API takes processor time from what the
	// test waits for.
	PollInterval = 20 * time.Millisecond
)

// Must ends the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until the condition is true. It ends the test after [Timeout]. The description completes "timed out waiting until".
func Eventually(t testing.TB, description string, condition func() bool) {
	t.Helper()
	poll(t, Timeout, wait.Backoff{Duration: PollInterval, Factor: 1.25, Cap: 10 * PollInterval, Steps: math.MaxInt}, description, condition)
}

// EventuallyWithin is [Eventually] with another timeout and a constant interval.
func EventuallyWithin(t testing.TB, timeout, interval time.Duration, description string, condition func() bool) {
	t.Helper()
	poll(t, timeout, wait.Backoff{Duration: interval}, description, condition)
}

func poll(t testing.TB, timeout time.Duration, intervals wait.Backoff, description string, condition func() bool) {
	t.Helper()
	deadline := time.After(timeout)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("timed out after %s waiting until %s", timeout, description)
		case <-time.After(intervals.Step()):
		}
	}
}

// Receive returns the next value from a channel, or the zero value when the channel is closed. It ends the test if neither happens within
// the timeout.
func Receive[T any](t testing.TB, timeout time.Duration, description string, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(timeout):
		t.Fatalf("timed out after %s waiting until %s", timeout, description)
	}
	return value
}

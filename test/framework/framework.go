// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package framework holds the helpers of all test suites. Its subpackages start a Kubernetes API (testenv), a cluster of one node
// (testnode) and processes of the operator (operator).
package framework

import (
	"testing"
	"time"
)

const (
	// Timeout bounds [Eventually]. After an outage, clients of the Kubernetes API may wait for half a minute before they try again.
	Timeout = time.Minute

	// PollInterval is the interval of [Eventually].
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
	EventuallyWithin(t, Timeout, PollInterval, description, condition)
}

// EventuallyWithin is [Eventually] with another timeout and interval.
func EventuallyWithin(t testing.TB, timeout, interval time.Duration, description string, condition func() bool) {
	t.Helper()
	deadline := time.After(timeout)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("timed out after %s waiting until %s", timeout, description)
		case <-time.After(interval):
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

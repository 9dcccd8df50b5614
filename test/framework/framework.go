// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package framework holds what all test suites share. Its subpackages give tests a real Kubernetes API (testenv), a real node (testnode),
// and the program as processes (operator).
package framework

import (
	"testing"
	"time"
)

const (
	// Timeout bounds the wait for a condition that becomes true soon.
	Timeout = 30 * time.Second

	pollInterval = 20 * time.Millisecond
)

// Must ends the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until the condition is true, and ends the test if it is not within [Timeout]. The description completes "timed out
// waiting until".
func Eventually(t testing.TB, description string, condition func() bool) {
	t.Helper()
	EventuallyWithin(t, Timeout, pollInterval, description, condition)
}

// EventuallyWithin does what [Eventually] does, within another time and at another interval.
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

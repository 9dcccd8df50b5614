// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package heap measures the Go heap of a test.
package heap

import "runtime"

// Live returns how many bytes of the heap are in use after a garbage collection.
func Live() int64 {
	runtime.GC()
	runtime.GC() // frees what finalizers and weak pointers kept
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return int64(memory.HeapAlloc)
}

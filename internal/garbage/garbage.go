// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package garbage says how a process trades memory for the processor time that collecting garbage takes.
package garbage

import (
	"os"
	"runtime/debug"
)

// How much garbage may lie beside what is in use until it is collected, in percent of that.
const (
	// Late spares processor time, for a process that requests wait for: with the usual 100, collecting garbage takes a twelfth of it under
	// load. What is in use is little, of 100 000 keys 30 MB.
	Late = 200

	// Early spares memory, for a process that nobody waits for. Nearly all that is in use are the APIKeys in the cache, which stay: of
	// 100 000, a controller takes 240 MB, and 360 MB with the usual 100.
	Early = 25
)

// Collect has garbage collected at this percentage, unless GOGC says otherwise.
func Collect(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

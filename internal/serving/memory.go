// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How long the headers of a request may be.
const (
	DefaultMaxHeaderBytes = 64 << 10 // more than Envoy and nginx pass on by default
	HighestMaxHeaderBytes = 1 << 20  // what Go's servers, and so Caddy and Traefik, accept by default
)

const (
	// unlimitedConnections is how many connections there may be where memory has no limit.
	unlimitedConnections = 10_000

	// maxOperationsConnections are enough for a kubelet, some Prometheus servers, and a person.
	maxOperationsConnections = 100

	// connectionShare of the memory limit is for connections: keys, requests and garbage need the other half.
	connectionShare = 0.5

	// idleConnectionBytes are taken by a connection on which nothing happens, garbage included: 59 KB were measured with gRPC over TLS, 46 KB
	// with HTTP/2, 39 KB with HTTP/1.1, and 8 KB before the handshake.
	idleConnectionBytes = 60 << 10
)

// memoryLimit is what GOMEMLIMIT says, or the limit of the control group.
func memoryLimit() int64 { return debug.SetMemoryLimit(-1) }

// connectionsIn returns how many connections a memory limit allows, when each sends headers at the same time.
func connectionsIn(limit int64, maxHeaderBytes int) int {
	if limit == math.MaxInt64 {
		return unlimitedConnections
	}
	return max(1, int(connectionShare*float64(limit)/float64(idleConnectionBytes+maxHeaderBytes)))
}

const (
	// reliefInterval is how often the memory in use is read.
	reliefInterval = 100 * time.Millisecond

	// shortMemory is the part of the memory limit that may be in use before connections are closed.
	shortMemory = 0.75
)

// relieveMemory closes all connections that were never granted anything while memory is short, until the context is done. How much one
// client may take is bounded, but many connections with as many streams, headers and messages as they may have are more than any memory.
func (p *Process) relieveMemory(ctx context.Context) error {
	limit := memoryLimit()
	if limit == math.MaxInt64 {
		return nil
	}
	log, memory := newBoundedLog(p.log, limitLines), newMemoryReading()
	interval := time.NewTicker(reliefInterval)
	defer interval.Stop()
	var relieved uint64 // the cycle of garbage collection after which connections were last closed
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-interval.C:
		}
		used, cycle := memory.read()
		if used < shortMemory*float64(limit) || cycle == relieved { // what it freed shows after the next one
			continue
		}
		relieved = cycle
		evicted := p.clients.evict(math.MaxInt)
		log.Warn("memory is short, so connections without a granted request are closed", "connections", evicted, "limit", limit)
	}
}

// memoryReading reads how much memory is in use: what the last collection of garbage left, and stacks.
type memoryReading []metrics.Sample

func newMemoryReading() memoryReading {
	return memoryReading{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
}

func (m memoryReading) read() (used float64, cycle uint64) {
	metrics.Read(m)
	return float64(m[0].Value.Uint64() + m[1].Value.Uint64()), m[2].Value.Uint64()
}

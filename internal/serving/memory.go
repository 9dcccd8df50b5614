// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"squirrel.dev/apikey-operator/internal/logging"
)

// Limits of the headers of a request.
const (
	DefaultMaxHeaderBytes = 64 << 10 // more than Envoy and nginx pass on by default
	HighestMaxHeaderBytes = 1 << 20  // the default limit of Go's servers, and so of Caddy and Traefik
)

const (
	// defaultMaxConnections is the limit of connections without a memory limit.
	defaultMaxConnections = 10_000

	// maxOperationsConnections is enough for a kubelet, some Prometheus servers and an operator.
	maxOperationsConnections = 100

	// connectionShare is the share of the memory limit for connections. Keys, requests and garbage need the other half.
	connectionShare = 0.5

	// idleConnectionBytes is the memory of an idle connection with its garbage. Measured: 59 KB with gRPC over TLS, 46 KB with HTTP/2, 39 KB
	// with HTTP/1.1, and 8 KB before the handshake.
	idleConnectionBytes = 60 << 10
)

// memoryLimit returns GOMEMLIMIT, or the limit of the control group.
func memoryLimit() int64 { return debug.SetMemoryLimit(-1) }

// maxConnectionsIn returns how many connections fit in a memory limit if all of them send headers at the same time.
func maxConnectionsIn(limit int64, maxHeaderBytes int) int {
	if limit == math.MaxInt64 {
		return defaultMaxConnections
	}
	return max(1, int(connectionShare*float64(limit)/float64(idleConnectionBytes+maxHeaderBytes)))
}

const (
	// memoryInterval is the interval at which the memory in use is read.
	memoryInterval = 100 * time.Millisecond

	// lowMemoryShare is the share of the memory limit above which connections are evicted.
	lowMemoryShare = 0.75
)

// evictAtLowMemory evicts all connections without a granted request while memory is low, until the context is done. The limits for one
// client do not suffice: many connections with the highest numbers of streams, headers and messages exceed any memory.
func (p *Process) evictAtLowMemory(ctx context.Context) error {
	limit := memoryLimit()
	if limit == math.MaxInt64 {
		return nil
	}
	log, memory := logging.Limit(p.log, limitLines), newMemoryReading()
	interval := time.NewTicker(memoryInterval)
	defer interval.Stop()
	var evictedIn uint64 // the cycle of garbage collection of the last eviction
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-interval.C:
		}
		used, cycle := memory.read()
		if used < lowMemoryShare*float64(limit) || cycle == evictedIn { // the next cycle shows what an eviction has freed
			continue
		}
		evictedIn = cycle
		evicted := p.clients.evict(math.MaxInt)
		log.Warn("Memory is low: closed the connections without a granted request", "connections", evicted, "limit", limit)
	}
}

// memoryReading reads the memory in use: stacks, and the live heap of the last garbage collection.
type memoryReading []metrics.Sample

func newMemoryReading() memoryReading {
	return memoryReading{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
}

func (m memoryReading) read() (used float64, cycle uint64) {
	metrics.Read(m)
	return float64(m[0].Value.Uint64() + m[1].Value.Uint64()), m[2].Value.Uint64()
}

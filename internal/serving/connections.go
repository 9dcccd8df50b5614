// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"container/list"
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"
)

// KeepConnection records that a request was granted for a key of a namespace. From then on, its connection is not closed to make room for
// another one: a client that floods a port has no key. A client that has one keeps no more than a share of the connections for its
// namespace, so that it leaves room for others. KeepConnection is cheap, and does nothing where there is no connection.
func KeepConnection(ctx context.Context, namespace string) {
	if c := connectionFrom(ctx); c != nil {
		c.keep(namespace)
	}
}

// connectionKey is the key of the connection in the context of an HTTP request.
type connectionKey struct{}

// connectionFrom returns the connection of an HTTP request or a gRPC call, or nil.
func connectionFrom(ctx context.Context) *connection {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return c
	}
	if caller, ok := peer.FromContext(ctx); ok {
		info, _ := caller.AuthInfo.(connectionInfo)
		return info.connection
	}
	return nil
}

// connectionOf returns the connection below TLS.
func connectionOf(c net.Conn) *connection {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	below, _ := c.(*connection)
	return below
}

// pool bounds how many connections are open at the servers that share it.
type pool struct {
	limit int

	mu        sync.Mutex
	open      int
	strangers list.List      // the open connections that are not kept, the longest silent first
	kept      map[string]int // how many connections are kept for a namespace
}

func newPool(limit int) *pool { return &pool{limit: limit, kept: map[string]int{}} }

// maxKept is how many connections are kept for one namespace: half of all, so that no namespace keeps those of all others out.
func (p *pool) maxKept() int { return max(1, p.limit/2) }

// connection is an open connection, from the moment that it is accepted: slow handshakes count too.
type connection struct {
	*net.TCPConn
	pool    *pool
	metrics *connectionMetrics
	kept    atomic.Bool
	aged    atomic.Bool
	aging   *time.Timer // sets aged; nil where gRPC sees to it

	// Below pool.mu.
	closed    bool
	stranger  *list.Element // in pool.strangers; nil when it is not there
	namespace string        // that a kept connection counts for
}

// admit opens a connection. When the pool is full, it closes the one that has been silent for longest of those that are not kept; where
// there are none, it returns nil, and the connection is not opened.
func (p *pool) admit(accepted *net.TCPConn, metrics *connectionMetrics) (c *connection, full bool) {
	c = &connection{TCPConn: accepted, pool: p, metrics: metrics}
	p.mu.Lock()
	defer p.mu.Unlock()
	full = p.open >= p.limit
	if full && !p.evictOne() {
		return nil, full
	}
	p.open++
	metrics.open.Inc()
	c.stranger = p.strangers.PushBack(c)
	return c, full
}

// evictOne closes the connection that has been silent for longest of those that are not kept. p.mu is held.
func (p *pool) evictOne() bool {
	longest := p.strangers.Front()
	if longest == nil {
		return false
	}
	victim := longest.Value.(*connection)
	victim.release()
	victim.metrics.evicted.Inc()
	_ = victim.TCPConn.Close() // below TLS: nothing waits for the client
	return true
}

// evict closes up to count connections that are not kept, and returns how many it closed.
func (p *pool) evict(count int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	evicted := 0
	for evicted < count && p.evictOne() {
		evicted++
	}
	return evicted
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if n > 0 && !c.kept.Load() {
		c.pool.mu.Lock()
		if c.stranger != nil {
			c.pool.strangers.MoveToBack(c.stranger)
		}
		c.pool.mu.Unlock()
	}
	return n, err
}

// keep takes the connection from the strangers, unless as many as may be are kept for the namespace.
func (c *connection) keep(namespace string) {
	if c.kept.Load() {
		return
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.closed || c.kept.Load() || c.pool.kept[namespace] >= c.pool.maxKept() {
		return
	}
	c.pool.kept[namespace]++
	c.namespace = namespace
	c.kept.Store(true)
	c.forget()
}

// forget removes the connection from the strangers. pool.mu is held.
func (c *connection) forget() {
	if c.stranger != nil {
		c.pool.strangers.Remove(c.stranger)
		c.stranger = nil
	}
}

// release gives back the connection's place in the pool, once. pool.mu is held.
func (c *connection) release() {
	if c.closed {
		return
	}
	c.closed = true
	c.pool.open--
	c.metrics.open.Dec()
	c.forget()
	if !c.kept.Load() {
		return
	}
	if c.pool.kept[c.namespace]--; c.pool.kept[c.namespace] == 0 {
		delete(c.pool.kept, c.namespace)
	}
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.pool.mu.Lock()
	c.release()
	c.pool.mu.Unlock()
	if c.aging != nil {
		c.aging.Stop()
	}
	return c.TCPConn.Close()
}

// age asks the client to give up the connection once it is that old, more or less, so that those of one moment do not all end in another.
func (c *connection) age(limit time.Duration) {
	jitter := 0.9 + 0.2*rand.Float64() //nolint:gosec // as gRPC does: no secret
	c.aging = time.AfterFunc(time.Duration(jitter*float64(limit)), func() { c.aged.Store(true) })
}

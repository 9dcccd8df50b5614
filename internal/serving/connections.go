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

// ProtectConnection records that a request was granted for a key of a namespace. It protects the connection of the request from eviction,
// so that clients without a key cannot displace it. A namespace gets no more than half of the limit, so that a client with a key cannot
// displace all others. ProtectConnection does not allocate, and does nothing if ctx has no connection.
func ProtectConnection(ctx context.Context, namespace string) {
	if c := connectionFrom(ctx); c != nil {
		c.protect(namespace)
	}
}

// connectionKey is the context key of the connection of an HTTP request.
type connectionKey struct{}

// connectionFrom returns the connection of an HTTP request or a gRPC call, or nil.
func connectionFrom(ctx context.Context) *connection {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return c
	}
	if client, ok := peer.FromContext(ctx); ok {
		info, _ := client.AuthInfo.(connectionInfo)
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

// pool limits the number of open connections of the servers that share it. A full pool evicts the longest idle connection that is not
// protected.
type pool struct {
	limit int

	mu        sync.Mutex
	open      int
	evictable list.List      // the connections that are not protected, the longest idle first
	protected map[string]int // the number of protected connections by namespace
}

func newPool(limit int) *pool { return &pool{limit: limit, protected: map[string]int{}} }

// maxProtected is the highest number of protected connections of a namespace.
func (p *pool) maxProtected() int { return max(1, p.limit/2) }

// connection is a connection of a pool from its acceptance on, so that slow handshakes count too.
type connection struct {
	*net.TCPConn
	pool      *pool
	metrics   *connectionMetrics
	protected atomic.Bool
	aged      atomic.Bool
	aging     *time.Timer // sets aged; nil for gRPC, which limits the age itself

	// Guarded by pool.mu.
	closed    bool
	element   *list.Element // of pool.evictable; nil if protected or closed
	namespace string        // of a protected connection
}

// admit adds a connection to the pool. If the pool is full, it evicts another one. If all are protected, it returns nil.
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
	c.element = p.evictable.PushBack(c)
	return c, full
}

// evictOne closes the longest idle connection that is not protected. The caller holds p.mu.
func (p *pool) evictOne() bool {
	longest := p.evictable.Front()
	if longest == nil {
		return false
	}
	victim := longest.Value.(*connection)
	victim.release()
	victim.metrics.evicted.Inc()
	_ = victim.TCPConn.Close() // below TLS, whose Close may wait for the client
	return true
}

// evict closes up to count connections that are not protected, and returns their number.
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
	if n > 0 && !c.protected.Load() {
		c.pool.mu.Lock()
		if c.element != nil {
			c.pool.evictable.MoveToBack(c.element)
		}
		c.pool.mu.Unlock()
	}
	return n, err
}

// protect protects the connection from eviction, unless its namespace has reached its share of the pool.
func (c *connection) protect(namespace string) {
	if c.protected.Load() {
		return
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.closed || c.protected.Load() || c.pool.protected[namespace] >= c.pool.maxProtected() {
		return
	}
	c.pool.protected[namespace]++
	c.namespace = namespace
	c.protected.Store(true)
	c.removeEvictable()
}

// removeEvictable removes the connection from the evictable ones. The caller holds pool.mu.
func (c *connection) removeEvictable() {
	if c.element != nil {
		c.pool.evictable.Remove(c.element)
		c.element = nil
	}
}

// release removes the connection from the pool, once. The caller holds pool.mu.
func (c *connection) release() {
	if c.closed {
		return
	}
	c.closed = true
	c.pool.open--
	c.metrics.open.Dec()
	c.removeEvictable()
	if !c.protected.Load() {
		return
	}
	if c.pool.protected[c.namespace]--; c.pool.protected[c.namespace] == 0 {
		delete(c.pool.protected, c.namespace)
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

// limitAge marks the connection as aged after about the limit. The jitter keeps connections that were opened together from ending together.
func (c *connection) limitAge(limit time.Duration) {
	jitter := 0.9 + 0.2*rand.Float64() //nolint:gosec // as gRPC does: no secret
	c.aging = time.AfterFunc(time.Duration(jitter*float64(limit)), func() { c.aged.Store(true) })
}

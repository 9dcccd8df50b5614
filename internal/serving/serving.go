// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package serving runs the HTTP and gRPC servers of a process, tells whether the process is ready, and drains it when it is told to stop.
package serving

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// shutdownTimeout bounds how long the requests under way may take at the end of a drain.
const shutdownTimeout = 10 * time.Second

// Options of a Process.
type Options struct {
	Log *slog.Logger

	// ShutdownDelay is how long the process goes on serving when it is told to stop, while its readiness says that it is about to go: that
	// is how long the cluster may take to send no more requests.
	ShutdownDelay time.Duration

	// MaxConnections may be open at the servers of AddServer and AddGRPCServer together. 0 is as many as the memory limit allows.
	MaxConnections int

	// MaxHeaderBytes of a request: a longer one is answered 431. 0 is DefaultMaxHeaderBytes.
	MaxHeaderBytes int

	// Metrics get the numbers of connections; nil registers none.
	Metrics prometheus.Registerer
}

// Process is the servers of one process, and the work that they rely on.
type Process struct {
	log           *slog.Logger
	shutdownDelay time.Duration
	draining      atomic.Bool
	engine        engineOptions
	clients       *pool // of the servers that API keys are sent to
	metrics       *processMetrics
	work          []func(context.Context) error
	servers       []*server
}

// server is one address.
type server struct {
	engine
	name     string
	address  string
	tls      *tls.Config
	pool     *pool
	metrics  *connectionMetrics
	acceptor *acceptor
}

// engine answers at an address: net/http or gRPC.
type engine interface {
	// protocols are what TLS may negotiate.
	protocols() []string
	// serve returns nil once it is shut down.
	serve(incoming *acceptor) error
	// shutdown takes no new connection and lets the requests under way end. When the context is done before, it cuts them off, and
	// returns an error.
	shutdown(ctx context.Context) error
}

// engineOptions are what bounds the clients of an engine.
type engineOptions struct {
	maxHeaderBytes   int
	maxConnectionAge time.Duration
	draining         *atomic.Bool
	log              *slog.Logger
}

// NewProcess returns a Process without servers.
func NewProcess(options Options) *Process {
	p := &Process{log: options.Log, shutdownDelay: options.ShutdownDelay, metrics: newMetrics(options.Metrics)}
	p.engine = engineOptions{
		maxHeaderBytes:   cmp.Or(options.MaxHeaderBytes, DefaultMaxHeaderBytes),
		maxConnectionAge: maxConnectionAge,
		draining:         &p.draining,
	}
	p.clients = newPool(cmp.Or(options.MaxConnections, connectionsIn(memoryLimit(), p.engine.maxHeaderBytes)))
	p.AddWork(p.relieveMemory)
	return p
}

// AddWork adds what has to go on until the last request is answered. It must return when its context is done; when it fails before,
// the process ends.
func (p *Process) AddWork(work func(context.Context) error) {
	p.work = append(p.work, work)
}

// AddServer adds an HTTP server that API keys are sent to, by a name for logs and metrics. Without a TLS configuration it serves plain
// HTTP. An address with port 0 gets any free port, which is logged.
func (p *Process) AddServer(name, address string, tlsConfig *tls.Config, handler http.Handler) {
	p.add(name, address, tlsConfig, p.clients, newHTTPEngine(handler, p.engineOptionsOf(name)))
}

// AddGRPCServer adds a server of the gRPC services that register registers, and of two more: reflection, and health (grpc.health.v1),
// which says of each what /readyz says. For all else see AddServer.
func (p *Process) AddGRPCServer(
	name, address string, tlsConfig *tls.Config, ready func() error, register func(grpc.ServiceRegistrar),
) {
	engine := newGRPCEngine(register, p.engineOptionsOf(name))
	p.AddWork(func(ctx context.Context) error { return engine.reportHealth(ctx, p.orDraining(ready)) })
	p.add(name, address, tlsConfig, p.clients, engine)
}

// AddOperationsServer adds a plain HTTP server for those who run and watch the process. However many clients the other servers have, it
// has connections of its own.
func (p *Process) AddOperationsServer(name, address string, handler http.Handler) {
	p.add(name, address, nil, newPool(maxOperationsConnections), newHTTPEngine(handler, p.engineOptionsOf(name)))
}

func (p *Process) engineOptionsOf(server string) engineOptions {
	options := p.engine
	options.log = p.log.With("server", server)
	return options
}

func (p *Process) add(name, address string, tlsConfig *tls.Config, pool *pool, engine engine) {
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.NextProtos = engine.protocols()
	}
	p.servers = append(p.servers, &server{
		engine: engine, name: name, address: address, tls: tlsConfig, pool: pool, metrics: p.metrics.of(name),
	})
}

// AddHealth adds a plain HTTP server of /healthz, which says that the process is alive, and /readyz, which says whether it can do its
// work, or why not.
func (p *Process) AddHealth(address string, ready func() error) {
	ready = p.orDraining(ready)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, nil) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, ready()) })
	p.AddOperationsServer("health", address, mux)
}

// orDraining is ready, until the process drains.
func (p *Process) orDraining(ready func() error) func() error {
	return func() error {
		if p.draining.Load() {
			return errors.New("shutting down")
		}
		return ready()
	}
}

func writeHealth(w http.ResponseWriter, problem error) {
	if problem != nil {
		http.Error(w, problem.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// Run serves until the context is done, then drains. It returns an error when an address cannot be served, or a server or the work
// fails.
func (p *Process) Run(ctx context.Context) error {
	if err := p.listen(ctx); err != nil {
		return err
	}
	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	failed := make(chan error, len(p.servers)+len(p.work))
	p.serve(&running, failed)
	p.startWork(working, &running, failed)

	err := p.waitAndDrain(ctx, failed)
	p.shutdown()
	stopWork()
	running.Wait()
	return err
}

func (p *Process) listen(ctx context.Context) error {
	for i, s := range p.servers {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
		if err != nil {
			for _, opened := range p.servers[:i] {
				_ = opened.acceptor.Close()
			}
			return fmt.Errorf("the %s server cannot listen on %s: %w", s.name, s.address, err)
		}
		s.acceptor = newAcceptor(listener, s, p.log.With("server", s.name))
	}
	return nil
}

func (p *Process) serve(running *sync.WaitGroup, failed chan<- error) {
	for _, s := range p.servers {
		p.log.Info("serving", "server", s.name, "addr", s.acceptor.Addr().String(), "tls", s.tls != nil, "maxConnections", s.pool.limit)
		running.Go(s.acceptor.run)
		running.Go(func() {
			if err := s.serve(s.acceptor); err != nil {
				failed <- fmt.Errorf("the %s server failed: %w", s.name, err)
			}
		})
	}
}

func (p *Process) startWork(ctx context.Context, running *sync.WaitGroup, failed chan<- error) {
	for _, work := range p.work {
		running.Go(func() {
			if err := work(ctx); err != nil {
				failed <- err
			}
		})
	}
}

// waitAndDrain returns when the process is to end: the context is done and the shutdown delay is over, or something failed.
func (p *Process) waitAndDrain(ctx context.Context, failed <-chan error) error {
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	p.draining.Store(true)
	p.log.Info("draining", "delay", p.shutdownDelay.String())
	select {
	case err := <-failed:
		return err
	case <-time.After(p.shutdownDelay):
		return nil
	}
}

// shutdown closes all servers: each takes no new connection, and lets the requests under way end, within bounds.
func (p *Process) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	var closing sync.WaitGroup
	for _, s := range p.servers {
		closing.Go(func() {
			_ = s.acceptor.Close()
			if err := s.shutdown(ctx); err != nil {
				p.log.Warn("cut off requests that did not end", "server", s.name, "err", err)
			}
		})
	}
	closing.Wait()
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

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

// shutdownTimeout limits how long requests in flight may take at the end of a drain.
const shutdownTimeout = 10 * time.Second

// Options are the options of a Process.
type Options struct {
	Log *slog.Logger

	// ShutdownDelay is how long the process continues to serve, while not ready, after the signal to stop. It must cover the time that the
	// cluster needs to remove the endpoint.
	ShutdownDelay time.Duration

	// MaxConnections is the limit of open connections of all servers of AddServer and AddGRPCServer. 0 derives it from the memory limit.
	MaxConnections int

	// MaxHeaderBytes is the limit of the headers of a request, above which the response is 431. 0 is DefaultMaxHeaderBytes.
	MaxHeaderBytes int

	// Metrics is the registry of the metrics. It may be nil.
	Metrics prometheus.Registerer
}

// Process runs the servers of a process, and the runnables that they depend on.
type Process struct {
	log           *slog.Logger
	shutdownDelay time.Duration
	draining      atomic.Bool
	engine        engineOptions
	clients       *pool                 // of the servers that receive API keys
	metrics       prometheus.Registerer // may be nil
	runnables     []func(context.Context) error
	servers       []*server
}

// server is a server at one address.
type server struct {
	engine
	name              string
	address           string
	tls               *tls.Config   // nil serves without TLS
	readHeaderTimeout time.Duration // also of the TLS handshake
	pool              *pool
	metrics           *connectionMetrics
	acceptor          *acceptor
}

// engine serves accepted connections, with net/http or gRPC.
type engine interface {
	// protocols returns the protocols for ALPN.
	protocols() []string
	// serve returns nil after a shutdown.
	serve(incoming *acceptor) error
	// shutdown accepts no further connection and waits for requests in flight. If the context is done before, it cancels them and returns an
	// error.
	shutdown(ctx context.Context) error
}

// engineOptions are the limits of an engine.
type engineOptions struct {
	maxHeaderBytes    int
	readHeaderTimeout time.Duration
	maxConnectionAge  time.Duration
	draining          *atomic.Bool
	log               *slog.Logger
}

// NewProcess returns a Process without servers.
func NewProcess(options Options) *Process {
	p := &Process{log: options.Log, shutdownDelay: options.ShutdownDelay, metrics: options.Metrics}
	p.engine = engineOptions{
		maxHeaderBytes:    cmp.Or(options.MaxHeaderBytes, DefaultMaxHeaderBytes),
		readHeaderTimeout: readHeaderTimeout,
		maxConnectionAge:  maxConnectionAge,
		draining:          &p.draining,
	}
	p.clients = newPool(cmp.Or(options.MaxConnections, maxConnectionsIn(memoryLimit(), p.engine.maxHeaderBytes)))
	p.AddRunnable(p.evictAtLowMemory)
	return p
}

// AddRunnable adds a function that runs until the last response is sent. It must return when its context is done. If it returns an error,
// the process stops.
func (p *Process) AddRunnable(run func(context.Context) error) {
	p.runnables = append(p.runnables, run)
}

// AddServer adds an HTTP server that receives API keys. Its name is for logs and metrics. Without a TLS configuration it serves plain HTTP.
// An address with port 0 gets a free port, which is logged.
func (p *Process) AddServer(name, address string, tlsConfig *tls.Config, handler http.Handler) {
	p.add(name, address, tlsConfig, p.clients, newHTTPEngine(handler, p.engineOptionsOf(name)))
}

// AddGRPCServer adds a gRPC server with the services that register registers, with reflection, and with health (grpc.health.v1), which
// reports the readiness of each service. See AddServer for the other parameters.
func (p *Process) AddGRPCServer(
	name, address string, tlsConfig *tls.Config, ready func() error, register func(grpc.ServiceRegistrar),
) {
	engine := newGRPCEngine(register, p.engineOptionsOf(name))
	p.AddRunnable(func(ctx context.Context) error { return engine.reportHealth(ctx, p.unlessDraining(ready)) })
	p.add(name, address, tlsConfig, p.clients, engine)
}

// AddOperationsServer adds an HTTP server for probes, monitoring or other processes of the operator. It has its own limit of connections,
// so that the clients of the other servers cannot displace it. See AddServer for the parameters.
func (p *Process) AddOperationsServer(name, address string, tlsConfig *tls.Config, handler http.Handler) {
	p.add(name, address, tlsConfig, newPool(maxOperationsConnections), newHTTPEngine(handler, p.engineOptionsOf(name)))
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
		engine: engine, name: name, address: address, tls: tlsConfig, readHeaderTimeout: p.engine.readHeaderTimeout,
		pool: pool, metrics: newConnectionMetrics(name, p.metrics),
	})
}

// AddHealth adds a plain HTTP server of /healthz, the liveness, and /readyz, the readiness.
func (p *Process) AddHealth(address string, ready func() error) {
	ready = p.unlessDraining(ready)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, nil) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, ready()) })
	p.AddOperationsServer("health", address, nil, mux)
}

// unlessDraining returns a readiness check that fails while the process drains.
func (p *Process) unlessDraining(ready func() error) func() error {
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

// Run serves until the context is done, and then drains. It returns an error if it cannot listen on an address, or if a server or a
// runnable fails.
func (p *Process) Run(ctx context.Context) error {
	if err := p.listen(ctx); err != nil {
		return err
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	failed := make(chan error, len(p.servers)+len(p.runnables))
	p.startServers(&running, failed)
	p.startRunnables(runCtx, &running, failed)

	err := p.waitAndDrain(ctx, failed)
	p.shutdown()
	stop()
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

func (p *Process) startServers(running *sync.WaitGroup, failed chan<- error) {
	for _, s := range p.servers {
		p.log.Info("Serving", "server", s.name, "addr", s.acceptor.Addr().String(), "tls", s.tls != nil, "maxConnections", s.pool.limit)
		running.Go(s.acceptor.run)
		running.Go(func() {
			if err := s.serve(s.acceptor); err != nil {
				failed <- fmt.Errorf("the %s server failed: %w", s.name, err)
			}
		})
	}
}

func (p *Process) startRunnables(ctx context.Context, running *sync.WaitGroup, failed chan<- error) {
	for _, run := range p.runnables {
		running.Go(func() {
			if err := run(ctx); err != nil {
				failed <- err
			}
		})
	}
}

// waitAndDrain returns when the context is done and the shutdown delay has passed, or when a server or runnable has failed.
func (p *Process) waitAndDrain(ctx context.Context, failed <-chan error) error {
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	p.draining.Store(true)
	p.log.Info("Draining", "delay", p.shutdownDelay.String())
	select {
	case err := <-failed:
		return err
	case <-time.After(p.shutdownDelay):
		return nil
	}
}

// shutdown shuts down all servers within shutdownTimeout.
func (p *Process) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	var closing sync.WaitGroup
	for _, s := range p.servers {
		closing.Go(func() {
			_ = s.acceptor.Close()
			if err := s.shutdown(ctx); err != nil {
				p.log.Warn("Canceled requests that did not end in time", "server", s.name, "err", err)
			}
		})
	}
	closing.Wait()
}

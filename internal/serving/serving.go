// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package serving runs the HTTP and gRPC servers of a process, tells whether the process is ready, and drains it when it is told to stop.
package serving

import (
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

	"google.golang.org/grpc"
)

// shutdownTimeout bounds how long the requests under way may take at the end of a drain.
const shutdownTimeout = 10 * time.Second

// Process is the servers of one process, and the work that they rely on.
type Process struct {
	log           *slog.Logger
	shutdownDelay time.Duration
	draining      atomic.Bool
	work          []func(context.Context) error
	servers       []*server
}

// server is one address.
type server struct {
	engine
	name     string
	address  string
	tls      bool
	listener net.Listener
}

// engine answers at an address: net/http or gRPC.
type engine interface {
	// serve returns nil once it is shut down.
	serve(listener net.Listener) error
	// shutdown takes no new connection and lets the requests under way end. When the context is done before, it cuts them off, and
	// returns an error.
	shutdown(ctx context.Context) error
}

// NewProcess returns a Process without servers. When it is told to stop, it goes on serving for shutdownDelay, while its readiness
// says that it is about to go: that is how long the cluster may take to send no more requests.
func NewProcess(log *slog.Logger, shutdownDelay time.Duration) *Process {
	return &Process{log: log, shutdownDelay: shutdownDelay}
}

// AddWork adds what has to go on until the last request is answered. It must return when its context is done; when it fails before,
// the process ends.
func (p *Process) AddWork(work func(context.Context) error) {
	p.work = append(p.work, work)
}

// AddServer adds an HTTP server, by a name for logs. Without a TLS configuration it serves plain HTTP. An address with port 0 gets any
// free port, which is logged.
func (p *Process) AddServer(name, address string, tlsConfig *tls.Config, handler http.Handler) {
	p.servers = append(p.servers, &server{
		name:    name,
		address: address,
		tls:     tlsConfig != nil,
		engine:  newHTTPEngine(p.closingWhenDraining(handler), tlsConfig, p.log.With("server", name)),
	})
}

// AddGRPCServer adds a server of the gRPC services that register registers, and of two more: reflection, and health (grpc.health.v1),
// which says of each what /readyz says. For all else see AddServer.
func (p *Process) AddGRPCServer(
	name, address string, tlsConfig *tls.Config, ready func() error, register func(grpc.ServiceRegistrar),
) {
	engine := newGRPCEngine(tlsConfig, register)
	p.AddWork(func(ctx context.Context) error { return engine.reportHealth(ctx, p.orDraining(ready)) })
	p.servers = append(p.servers, &server{name: name, address: address, tls: tlsConfig != nil, engine: engine})
}

// AddHealth adds a plain HTTP server of /healthz, which says that the process is alive, and /readyz, which says whether it can do its
// work, or why not.
func (p *Process) AddHealth(address string, ready func() error) {
	ready = p.orDraining(ready)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, nil) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, ready()) })
	p.AddServer("health", address, nil, mux)
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
		var err error
		if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.address); err != nil {
			for _, opened := range p.servers[:i] {
				_ = opened.listener.Close()
			}
			return fmt.Errorf("the %s server cannot listen on %s: %w", s.name, s.address, err)
		}
	}
	return nil
}

func (p *Process) serve(running *sync.WaitGroup, failed chan<- error) {
	for _, s := range p.servers {
		p.log.Info("serving", "server", s.name, "addr", s.listener.Addr().String(), "tls", s.tls)
		running.Go(func() {
			if err := s.serve(s.listener); err != nil {
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
			if err := s.shutdown(ctx); err != nil {
				p.log.Warn("cut off requests that did not end", "server", s.name, "err", err)
			}
		})
	}
	closing.Wait()
}

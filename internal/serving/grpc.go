// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// Further limits for one gRPC client.
const (
	// maxCheckBytes is the limit of a check without the headers of the client's request. Each stream may hold an incomplete check.
	maxCheckBytes = 192 << 10

	// maxRecordBytes is the size of the largest TLS record. No read returns more.
	maxRecordBytes = 16 << 10

	// minPingInterval is below usual keepalive settings of gateways. A client that sends pings more often is disconnected.
	minPingInterval = 5 * time.Second
)

// healthInterval is the interval at which the health service is updated.
const healthInterval = 100 * time.Millisecond

// grpcEngine is the engine of gRPC.
type grpcEngine struct {
	*grpc.Server
	health     *health.Server
	services   []string
	stopping   context.Context
	endStreams context.CancelFunc
}

func newGRPCEngine(register func(grpc.ServiceRegistrar), options engineOptions) *grpcEngine {
	e := &grpcEngine{health: health.NewServer()}
	e.stopping, e.endStreams = context.WithCancel(context.Background())
	e.Server = grpc.NewServer(
		grpc.Creds(connectionCredentials{insecure.NewCredentials()}),
		grpc.ConnectionTimeout(options.readHeaderTimeout),
		grpc.MaxHeaderListSize(uint32(options.maxHeaderBytes)),
		grpc.MaxRecvMsgSize(options.maxHeaderBytes+maxCheckBytes),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		// Calls reuse goroutines, whose stacks have grown. More calls at once than these start others. See decision 14.
		grpc.NumStreamWorkers(maxConcurrentStreams),
		grpc.ReadBufferSize(maxRecordBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle:     idleTimeout,
			MaxConnectionAge:      options.maxConnectionAge, // gRPC adds jitter
			MaxConnectionAgeGrace: shutdownTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.StreamInterceptor(e.cancelStreamAtShutdown),
	)
	register(e)
	e.services = append(slices.Collect(maps.Keys(e.GetServiceInfo())), "") // "" is the whole server
	e.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	healthv1.RegisterHealthServer(e, e.health)
	reflection.Register(e)
	return e
}

// connectionCredentials add the connection to the context of each call. They perform no handshake, because the acceptor does.
type connectionCredentials struct {
	credentials.TransportCredentials
}

// connectionInfo is the connection of a call.
type connectionInfo struct{ connection *connection }

// AuthType implements credentials.AuthInfo.
func (connectionInfo) AuthType() string { return "" }

// ServerHandshake implements credentials.TransportCredentials.
func (connectionCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, connectionInfo{connectionOf(c)}, nil
}

func (*grpcEngine) protocols() []string { return []string{protocolHTTP2} }

func (e *grpcEngine) serve(incoming *acceptor) error {
	served, unserved := incoming.others, incoming.http2
	if incoming.server.tls != nil {
		served, unserved = unserved, served
	}
	_ = unserved.Close() // the acceptor then closes connections that did not negotiate HTTP/2
	err := e.Serve(served)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

func (e *grpcEngine) shutdown(ctx context.Context) error {
	e.endStreams()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.GracefulStop()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		e.Stop()
		return ctx.Err()
	}
}

// cancelStreamAtShutdown cancels the context of a stream at shutdown. The stream of a health watch has no other end.
func (e *grpcEngine) cancelStreamAtShutdown(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(e.stopping, cancel)()
	return handler(srv, streamWithContext{stream, ctx})
}

// streamWithContext is a stream with another context.
type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s streamWithContext) Context() context.Context { return s.ctx }

// reportHealth updates the health service until the context is done.
func (e *grpcEngine) reportHealth(ctx context.Context, ready func() error) error {
	interval := time.NewTicker(healthInterval)
	defer interval.Stop()
	for {
		if ready() == nil {
			e.setHealth(healthv1.HealthCheckResponse_SERVING)
		} else {
			e.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-interval.C:
		}
	}
}

func (e *grpcEngine) setHealth(status healthv1.HealthCheckResponse_ServingStatus) {
	for _, service := range e.services {
		e.health.SetServingStatus(service, status)
	}
}

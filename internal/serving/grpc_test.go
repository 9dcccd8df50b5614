// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"squirrel.dev/apikey-operator/test/framework"
)

const (
	serviceName = "test.Echo"
	echoMethod  = "/test.Echo/Echo"
	granted     = "granted"
)

// echoServiceAfter registers a service that returns the text of a request, after a call of wait.
func echoServiceAfter(wait func(text string)) func(grpc.ServiceRegistrar) {
	handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		text := &wrapperspb.StringValue{}
		if err := decode(text); err != nil {
			return nil, err
		}
		wait(text.Value)
		if text.Value == granted {
			ProtectConnection(ctx, "shop")
		}
		return text, nil
	}
	return func(registrar grpc.ServiceRegistrar) {
		registrar.RegisterService(&grpc.ServiceDesc{
			ServiceName: serviceName,
			HandlerType: (*any)(nil),
			Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: handler}},
		}, struct{}{})
	}
}

var echoService = echoServiceAfter(func(string) {})

func alwaysReady() error { return nil }

func dial(t *testing.T, address string, credentials credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

func echo(ctx context.Context, connection *grpc.ClientConn, text string, options ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response := &wrapperspb.StringValue{}
	err := connection.Invoke(ctx, echoMethod, wrapperspb.String(text), response, options...)
	return response.Value, err
}

func assertEchoes(t *testing.T, connection *grpc.ClientConn) {
	t.Helper()
	if response, err := echo(t.Context(), connection, "hello"); response != "hello" || err != nil {
		t.Errorf("the response is %q, %v", response, err)
	}
}

func healthOf(t *testing.T, connection *grpc.ClientConn, service string) healthv1.HealthCheckResponse_ServingStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	response, err := healthv1.NewHealthClient(connection).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return response.Status
}

func TestGRPCHealth_FollowsReadinessAndDrain(t *testing.T) {
	t.Parallel()
	const (
		serving    = healthv1.HealthCheckResponse_SERVING
		notServing = healthv1.HealthCheckResponse_NOT_SERVING
	)
	r := newRunning(t, time.Second)
	ready := make(chan struct{})
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, func() error {
		select {
		case <-ready:
			return nil
		default:
			return errors.New("the keys are not synced")
		}
	}, echoService)
	r.start()
	connection := dial(t, r.address("grpc"), insecure.NewCredentials())
	watch, err := healthv1.NewHealthClient(connection).Watch(t.Context(), &healthv1.HealthCheckRequest{Service: serviceName})
	if err != nil {
		t.Fatal(err)
	}
	assertWatched := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if response, err := watch.Recv(); err != nil || response.Status != want {
			t.Fatalf("the watch received %v, %v, want %v", response.GetStatus(), err, want)
		}
		for _, service := range []string{"", serviceName} {
			framework.Eventually(t, "a health check returns the same", func() bool { return healthOf(t, connection, service) == want })
		}
	}

	assertWatched(notServing)
	assertEchoes(t, connection)
	close(ready)
	assertWatched(serving)
	r.stop()
	assertWatched(notServing)
	assertEchoes(t, connection) // the server serves during the delay

	if _, err := watch.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("the watch ended with %v", err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestGRPCHealth_RejectsUnknownServices(t *testing.T) {
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoService)
	r.start()
	defer r.stop()
	connection := dial(t, r.address("grpc"), insecure.NewCredentials())
	_, err := healthv1.NewHealthClient(connection).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "test.Other"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("the error for an unknown service is %v", err)
	}
}

func TestGRPCReflection_ListsTheServices(t *testing.T) {
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoService)
	r.start()
	defer r.stop()
	connection := dial(t, r.address("grpc"), insecure.NewCredentials())
	stream, err := reflectionv1.NewServerReflectionClient(connection).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range response.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", serviceName}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("the services differ (-want +got):\n%s", diff)
	}
}

func TestGRPCDrain_CompletesCallsAndLosesNone(t *testing.T) {
	t.Parallel()
	r := newRunning(t, 500*time.Millisecond)
	entered, release := make(chan struct{}), make(chan struct{})
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoServiceAfter(func(text string) {
		if text == "slow" {
			close(entered)
			<-release
		}
	}))
	r.start()
	address := r.address("grpc")
	slow := make(chan error, 1)
	slowClient, fastClient := dial(t, address, insecure.NewCredentials()), dial(t, address, insecure.NewCredentials())
	go func() {
		response, err := echo(context.WithoutCancel(t.Context()), slowClient, "slow")
		if err == nil && response != "slow" {
			err = errors.New("the response is " + response)
		}
		slow <- err
	}()
	<-entered
	assertEchoes(t, fastClient)

	r.stop()
	var err error
	framework.Eventually(t, "the server rejects new calls", func() bool { _, err = echo(t.Context(), fastClient, "hello"); return err != nil })
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a call was sent and got no response: %v", err)
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("the call in flight failed: %v", err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestGRPCShutdown_CancelsCallsThatDoNotEnd(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoServiceAfter(func(string) { close(entered); <-release }))
	if err := r.listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	engine, incoming := r.servers[0].engine, r.servers[0].acceptor
	defer func() { _ = incoming.Close() }()
	go incoming.run()
	served := make(chan error, 1)
	go func() { served <- engine.serve(incoming) }()
	connection := dial(t, incoming.Addr().String(), insecure.NewCredentials())
	called := make(chan error, 1)
	go func() { _, err := echo(t.Context(), connection, "slow"); called <- err }()
	<-entered

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := engine.shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the shutdown returned %v", err)
	}
	if err := <-called; status.Code(err) != codes.Unavailable {
		t.Errorf("the call returned %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("the server returned %v", err)
	}
	if err := engine.serve(incoming); err != nil {
		t.Errorf("serving after the shutdown returned %v", err)
	}
}

func TestGRPCServer_WithTLSRejectsPlaintext(t *testing.T) {
	server, trust := certified(t)
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", server, alwaysReady, echoService)
	r.start()
	defer r.stop()
	address := r.address("grpc")

	assertEchoes(t, dial(t, address, credentials.NewTLS(trust)))
	if _, err := echo(t.Context(), dial(t, address, insecure.NewCredentials()), "hello"); status.Code(err) != codes.Unavailable {
		t.Errorf("without TLS, the call returned %v", err)
	}
}

func TestGRPCServer_LimitsOneClient(t *testing.T) {
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoService)
	r.start()
	defer r.stop()
	address := r.address("grpc")

	got := map[http2.SettingID]uint32{}
	if err := firstSettings(t, address).ForeachSetting(func(s http2.Setting) error { got[s.ID] = s.Val; return nil }); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[http2.SettingID]uint32{
		http2.SettingMaxConcurrentStreams: maxConcurrentStreams,
		http2.SettingMaxHeaderListSize:    DefaultMaxHeaderBytes,
	} {
		if got[id] != want {
			t.Errorf("%s is %d, want %d", id, got[id], want)
		}
	}

	assertMessageLimit(t, dial(t, address, insecure.NewCredentials()), 256<<10)
}

func TestGRPCServer_MessageLimitFollowsHeaderLimit(t *testing.T) {
	r := newRunningWith(t, Options{MaxHeaderBytes: HighestMaxHeaderBytes})
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoService)
	r.start()
	defer r.stop()
	assertMessageLimit(t, dial(t, r.address("grpc"), insecure.NewCredentials()), HighestMaxHeaderBytes+192<<10)
}

func assertMessageLimit(t *testing.T, connection *grpc.ClientConn, limit int) {
	t.Helper()
	const overhead = 5 // of the protobuf encoding
	if _, err := echo(t.Context(), connection, strings.Repeat("a", limit-overhead)); err != nil {
		t.Errorf("a message of the limit returned %v", err)
	}
	if _, err := echo(t.Context(), connection, strings.Repeat("a", limit)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message above the limit returned %v", err)
	}
	assertEchoes(t, connection)
}

// firstSettings returns the first frame of an HTTP/2 server.
func firstSettings(t *testing.T, address string) *http2.SettingsFrame {
	t.Helper()
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(connection, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	frame, err := http2.NewFramer(connection, connection).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("the first frame is %v", frame)
	}
	return settings
}

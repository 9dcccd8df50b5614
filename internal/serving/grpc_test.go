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
	echoService = "test.Echo"
	echoMethod  = "/test.Echo/Say"
	granted     = "granted"
)

// echoing registers a service that says what it is told, once say returns.
func echoing(say func(text string)) func(grpc.ServiceRegistrar) {
	handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		text := &wrapperspb.StringValue{}
		if err := decode(text); err != nil {
			return nil, err
		}
		say(text.Value)
		if text.Value == granted {
			KeepConnection(ctx, "shop")
		}
		return text, nil
	}
	return func(registrar grpc.ServiceRegistrar) {
		registrar.RegisterService(&grpc.ServiceDesc{
			ServiceName: echoService,
			HandlerType: (*any)(nil),
			Methods:     []grpc.MethodDesc{{MethodName: "Say", Handler: handler}},
		}, struct{}{})
	}
}

var echoingAtOnce = echoing(func(string) {})

func alwaysReady() error { return nil }

// dial returns a connection that trusts what these credentials say.
func dial(t *testing.T, address string, trust credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(trust))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

func say(ctx context.Context, connection *grpc.ClientConn, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer := &wrapperspb.StringValue{}
	err := connection.Invoke(ctx, echoMethod, wrapperspb.String(text), answer)
	return answer.Value, err
}

func assertSays(t *testing.T, connection *grpc.ClientConn) {
	t.Helper()
	if answer, err := say(t.Context(), connection, "hello"); answer != "hello" || err != nil {
		t.Errorf("answered %q, %v", answer, err)
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

func TestGRPCHealthFollowsReadinessAndDrain(t *testing.T) {
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
			return errors.New("the keys are not here yet")
		}
	}, echoingAtOnce)
	r.start()
	connection := dial(t, r.address("grpc"), insecure.NewCredentials())
	watch, err := healthv1.NewHealthClient(connection).Watch(t.Context(), &healthv1.HealthCheckRequest{Service: echoService})
	if err != nil {
		t.Fatal(err)
	}
	assertWatched := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if response, err := watch.Recv(); err != nil || response.Status != want {
			t.Fatalf("whoever watches is told %v, %v, want %v", response.GetStatus(), err, want)
		}
		for _, service := range []string{"", echoService} {
			framework.Eventually(t, "whoever asks is told the same", func() bool { return healthOf(t, connection, service) == want })
		}
	}

	assertWatched(notServing)
	assertSays(t, connection)
	close(ready)
	assertWatched(serving)
	r.stop()
	assertWatched(notServing)
	assertSays(t, connection) // it goes on answering during the delay

	if _, err := watch.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("the watch ended with %v", err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestGRPCHealthKnowsNoOtherService(t *testing.T) {
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoingAtOnce)
	r.start()
	defer r.stop()
	connection := dial(t, r.address("grpc"), insecure.NewCredentials())
	_, err := healthv1.NewHealthClient(connection).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "test.Other"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service is answered %v", err)
	}
}

func TestGRPCReflectionListsTheServices(t *testing.T) {
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoingAtOnce)
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
	want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", echoService}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("the services differ (-want +got):\n%s", diff)
	}
}

func TestGRPCDrainLetsCallsEndAndLosesNone(t *testing.T) {
	t.Parallel()
	r := newRunning(t, 500*time.Millisecond)
	entered, release := make(chan struct{}), make(chan struct{})
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoing(func(text string) {
		if text == "slow" {
			close(entered)
			<-release
		}
	}))
	r.start()
	address := r.address("grpc")
	slow := make(chan error, 1)
	slowly, keeping := dial(t, address, insecure.NewCredentials()), dial(t, address, insecure.NewCredentials())
	go func() {
		answer, err := say(context.WithoutCancel(t.Context()), slowly, "slow")
		if err == nil && answer != "slow" {
			err = errors.New("answered " + answer)
		}
		slow <- err
	}()
	<-entered
	assertSays(t, keeping)

	r.stop()
	var err error
	framework.Eventually(t, "it takes no more calls", func() bool { _, err = say(t.Context(), keeping, "hello"); return err != nil })
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a call was lost: %v", err) // it was sent, and not answered
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("the call under way ended with %v", err)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestGRPCCallsThatDoNotEndAreCutOff(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoing(func(string) { close(entered); <-release }))
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
	go func() { _, err := say(t.Context(), connection, "slow"); called <- err }()
	<-entered

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := engine.shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the shutdown ended with %v", err)
	}
	if err := <-called; status.Code(err) != codes.Unavailable {
		t.Errorf("the call was answered %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if err := engine.serve(incoming); err != nil {
		t.Errorf("served after its end, it says %v", err)
	}
}

func TestGRPCOverTLSSpeaksNoPlaintext(t *testing.T) {
	server, trust := certified(t)
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", server, alwaysReady, echoingAtOnce)
	r.start()
	defer r.stop()
	address := r.address("grpc")

	assertSays(t, dial(t, address, credentials.NewTLS(trust)))
	if _, err := say(t.Context(), dial(t, address, insecure.NewCredentials()), "hello"); status.Code(err) != codes.Unavailable {
		t.Errorf("without TLS, the answer is %v", err)
	}
}

func TestOneGRPCClientHasBounds(t *testing.T) {
	r := newRunning(t, 0)
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoingAtOnce)
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

func TestAGRPCMessageMayBeLongerWhereHeadersMay(t *testing.T) {
	r := newRunningWith(t, Options{MaxHeaderBytes: HighestMaxHeaderBytes})
	r.AddGRPCServer("grpc", "127.0.0.1:0", nil, alwaysReady, echoingAtOnce)
	r.start()
	defer r.stop()
	assertMessageLimit(t, dial(t, r.address("grpc"), insecure.NewCredentials()), HighestMaxHeaderBytes+192<<10)
}

func assertMessageLimit(t *testing.T, connection *grpc.ClientConn, limit int) {
	t.Helper()
	const overhead = 5 // of a protobuf string in a message
	if _, err := say(t.Context(), connection, strings.Repeat("a", limit-overhead)); err != nil {
		t.Errorf("a message of the limit is answered %v", err)
	}
	if _, err := say(t.Context(), connection, strings.Repeat("a", limit)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over the limit is answered %v", err)
	}
	assertSays(t, connection)
}

// firstSettings are what a server of HTTP/2 says first.
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

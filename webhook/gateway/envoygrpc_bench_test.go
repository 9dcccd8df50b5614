// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"squirrel.dev/apikey-operator/webhook/gateway"
)

const (
	checkMethod      = "/envoy.service.auth.v3.Authorization/Check"
	floorCheckMethod = "/floor.Authorization/Check"
)

const (
	callers = 32  // ask at once, over one connection, as a thread of Envoy does
	turns   = 100 // each of the three is asked in turn, so that none has the machine's better moment
)

// BenchmarkCheckThroughput asks one gRPC server, over a kept connection on loopback, for a granted Check, a refused one, and one that
// decides nothing, which answers with a grant made in advance: what gRPC itself costs. All are about a request with the headers of a
// browser. An iteration is one of each. There is no TLS; client and server share the machine.
func BenchmarkCheckThroughput(b *testing.B) {
	authenticator, options := setup{}.parts(b)
	client := serveGRPC(b, func(server *grpc.Server) {
		gateway.RegisterEnvoy(server, authenticator, "", options)
		floor := authv3.Authorization_ServiceDesc
		floor.ServiceName = "floor.Authorization"
		server.RegisterService(&floor, checkOfNothing{grant: inGRPC(readerMayRead(), "x-api-key")})
	}, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(encoded{})))

	questions := []*checkQuestion{
		{name: "floor", method: floorCheckMethod, key: readToken},
		{name: "check-granted", method: checkMethod, key: readToken},
		{name: "check-refused", method: checkMethod, key: "sq_unknown"},
	}
	for _, q := range questions {
		q.learn(b, client.connection)
	}
	b.ResetTimer()
	for turn := range turns {
		for _, q := range questions {
			q.ask(b, client.connection, b.N*(turn+1)/turns-b.N*turn/turns)
		}
	}
	floor := float64(b.N) / questions[0].took.Seconds()
	for _, q := range questions {
		rate := float64(b.N) / q.took.Seconds()
		b.ReportMetric(rate, q.name+"-req/s")
		if q != questions[0] {
			b.ReportMetric(rate/floor, q.name+"/floor")
		}
	}
}

// checkOfNothing grants everything.
type checkOfNothing struct {
	authv3.UnimplementedAuthorizationServer
	grant *authv3.CheckResponse
}

func (c checkOfNothing) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return c.grant, nil
}

// checkQuestion is a call that is made again and again. It costs as little as a call can: request and answer are kept encoded.
type checkQuestion struct {
	name, method, key string
	request, answer   []byte
	took              time.Duration
}

// learn asks once, and keeps the answer.
func (q *checkQuestion) learn(b *testing.B, connection *grpc.ClientConn) {
	b.Helper()
	var err error
	if q.request, err = proto.Marshal(browsersCheck("GET", q.key)); err != nil {
		b.Fatal(err)
	}
	if err := connection.Invoke(b.Context(), q.method, q.request, &q.answer); err != nil {
		b.Fatal(err)
	}
	response := &authv3.CheckResponse{}
	if err := proto.Unmarshal(q.answer, response); err != nil {
		b.Fatal(err)
	}
	if granted := response.GetStatus().GetCode() == 0; granted != (q.key == readToken) {
		b.Fatalf("the answer to %s is %v", q.name, response)
	}
}

// ask makes a number of calls, from all callers at once.
func (q *checkQuestion) ask(b *testing.B, connection *grpc.ClientConn, calls int) {
	b.Helper()
	var asking sync.WaitGroup
	start := time.Now()
	for i := range callers {
		share := calls*(i+1)/callers - calls*i/callers
		asking.Go(func() {
			var answer []byte
			for range share {
				if err := connection.Invoke(b.Context(), q.method, q.request, &answer); err != nil || !bytes.Equal(answer, q.answer) {
					b.Errorf("another answer: %s, %v", answer, err)
					return
				}
			}
		})
	}
	asking.Wait()
	q.took += time.Since(start)
}

// encoded is a codec of messages that are encoded by whoever sends and decoded by whoever receives them.
type encoded struct{}

func (encoded) Name() string { return "proto" }

func (encoded) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(message.([]byte))}, nil
}

func (encoded) Unmarshal(content mem.BufferSlice, message any) error {
	kept := message.(*[]byte)
	*kept = slices.Grow((*kept)[:0], content.Len())[:content.Len()]
	content.CopyTo(*kept)
	return nil
}

// browsersCheck is what Envoy asks about a request as browsers send them.
func browsersCheck(method, key string) *authv3.CheckRequest {
	headers := []string{
		"X-API-Key: " + key,
		"X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1", "X-Envoy-Internal: true",
		"X-Request-Id: 2f9b1c1e-6b1a-4a4e-8f0e-0d8f6a8c7b11",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
		"Accept: application/json, text/plain, */*", "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate, br",
		"Referer: https://shop.example/", "Origin: https://shop.example", "Cookie: session=6c5b2f0f7f0f4b0e8b5a",
		"Sec-Fetch-Dest: empty", "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin",
	}
	return newCheck("headers", method, headers...)
}

// BenchmarkCheck is what the service alone allocates and takes, without gRPC.
func BenchmarkCheck(b *testing.B) {
	authenticator, options := setup{}.parts(b)
	var envoy implementation
	gateway.RegisterEnvoy(&envoy, authenticator, "", options)
	for name, key := range map[string]string{"granted": readToken, "refused": "sq_unknown"} {
		b.Run(name, func(b *testing.B) {
			check := browsersCheck("GET", key)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := envoy.Check(b.Context(), check); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// dial connects to an authenticator with the TLS settings of Envoy's page.
func (s *shop) dial(authenticator *operator.Process) *grpc.ClientConn {
	s.Helper()
	transport, err := credentials.NewClientTLSFromFile(s.caFile, proxies.AuthenticatorName)
	framework.Must(s, err)
	connection, err := grpc.NewClient(authenticator.Address("grpc"), grpc.WithTransportCredentials(transport))
	framework.Must(s, err)
	s.Cleanup(func() { _ = connection.Close() })
	return connection
}

// check sends a check for a request with this key. Without a namespace, it has no context extension.
func (s *shop) check(connection *grpc.ClientConn, namespace, method, key string) *authv3.CheckResponse {
	s.Helper()
	attributes := &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method:  method,
			Path:    "/articles",
			Headers: map[string]string{":method": method, ":path": "/articles", ":authority": "shop.example.com"},
		}},
	}
	if namespace != "" {
		attributes.ContextExtensions = map[string]string{"namespace": namespace}
	}
	if key != "" {
		attributes.GetRequest().GetHttp().Headers["x-api-key"] = s.keys[key].token
	}
	response, err := authv3.NewAuthorizationClient(connection).Check(s.Context(), &authv3.CheckRequest{Attributes: attributes})
	framework.Must(s, err)
	return response
}

// The client is that of go-control-plane, not Envoy.
func TestEnvoyGRPC_ChecksOverTLS(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t))
	synced := s.dial(s.syncedAuthenticator())
	for _, test := range []struct {
		name, namespace, method, key string
		want                         codes.Code
		// status is the response of Envoy to its client.
		status int32
	}{
		{"read access, GET", s.namespace, "GET", "reader", codes.OK, 0},
		{"read access, POST", s.namespace, "POST", "reader", codes.Unauthenticated, 401},
		{"no key", s.namespace, "GET", "", codes.Unauthenticated, 401},
		{"an unknown key", s.namespace, "GET", "unknown", codes.Unauthenticated, 401},
		{"a key of another namespace", s.namespace, "GET", "stranger", codes.Unauthenticated, 401},
		{"no namespace", "", "GET", "both", codes.Internal, 500},
	} {
		response := s.check(synced, test.namespace, test.method, test.key)
		if got, status := codes.Code(response.GetStatus().GetCode()), int32(response.GetDeniedResponse().GetStatus().GetCode()); got != test.want || status != test.status {
			t.Errorf("%s: the response is %s %d, want %s %d", test.name, got, status, test.want, test.status)
		}
	}

	granted := s.check(synced, s.namespace, "GET", "reader").GetOkResponse()
	got := map[string]string{}
	for _, header := range granted.GetHeaders() {
		if header.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s could be added to the values of a client", header.GetHeader().GetKey())
		}
		got[header.GetHeader().GetKey()] = header.GetHeader().GetValue()
	}
	want := map[string]string{
		"x-auth-app": readersApp, "x-auth-namespace": s.namespace, "x-auth-key-id": s.keys["reader"].id, "x-auth-access": "read",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the headers for the service differ (-want +got):\n%s", diff)
	}
	wantRemoved := []string{"x-api-key", "x-http-method", "x-http-method-override", "x-method-override"}
	if diff := cmp.Diff(wantRemoved, granted.GetHeadersToRemove()); diff != "" {
		t.Errorf("the headers to remove differ (-want +got):\n%s", diff)
	}

	unsynced := s.dial(s.unsyncedAuthenticator())
	if response := s.check(unsynced, s.namespace, "GET", "reader"); response.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("the response of an authenticator that is not synced is %v", response)
	}
	for connection, want := range map[*grpc.ClientConn]healthv1.HealthCheckResponse_ServingStatus{
		synced: healthv1.HealthCheckResponse_SERVING, unsynced: healthv1.HealthCheckResponse_NOT_SERVING,
	} {
		framework.Eventually(s, "its health is "+want.String(), func() bool {
			health, err := healthv1.NewHealthClient(connection).Check(t.Context(), &healthv1.HealthCheckRequest{})
			framework.Must(s, err)
			return health.GetStatus() == want
		})
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"squirrel.dev/apikey-operator/test/bench/keys"
)

// fixedResponse is a response to a check that was recorded in advance.
type fixedResponse struct {
	status int
	header http.Header
	body   []byte
}

// record returns the response of a handler to a check with a token.
func record(handler http.Handler, path, token string) (*fixedResponse, error) {
	check := httptest.NewRequest(http.MethodGet, path, nil)
	check.Header.Set("X-Api-Key", token)
	if strings.HasPrefix(path, "/auth/forward/") {
		check.Header.Set("X-Forwarded-Method", http.MethodGet)
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, check)
	if recorder.Code != http.StatusOK && recorder.Code != http.StatusUnauthorized {
		return nil, fmt.Errorf("the response to a check at %s is %d: %s", path, recorder.Code, recorder.Body)
	}
	return &fixedResponse{recorder.Code, recorder.Result().Header, recorder.Body.Bytes()}, nil
}

func (f *fixedResponse) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), f.header)
	w.WriteHeader(f.status)
	if len(f.body) > 0 {
		_, _ = w.Write(f.body)
	}
}

// withFixed also serves what the checks are compared with: the responses to a granted check at /fixed/granted/{namespace} and to a denied
// one at /fixed/denied/{namespace}, made in advance, and an empty response at /fixed/empty.
func withFixed(handler http.Handler, key keys.Key) (http.Handler, error) {
	granted, err := record(handler, "/auth/forward/"+key.Namespace, key.Token)
	if err != nil {
		return nil, err
	}
	denied, err := record(handler, "/auth/envoy/"+key.Namespace+"/orders", unknown(key.Token))
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.RequestURI, "/fixed/granted/"):
			granted.write(w)
		case strings.HasPrefix(r.RequestURI, "/fixed/denied/"):
			denied.write(w)
		case r.RequestURI == "/fixed/empty":
			w.WriteHeader(http.StatusOK)
		default:
			handler.ServeHTTP(w, r)
		}
	}), nil
}

// unknown returns a token of the same length that no key has.
func unknown(token string) string { return "qs_" + token[len("sq_"):] }

// fixedGRPC is a service like Envoy's that returns a response that was made in advance.
type fixedGRPC struct {
	authv3.UnimplementedAuthorizationServer
	response *authv3.CheckResponse
}

// Check returns the response.
func (f fixedGRPC) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { //nolint:unparam // of the interface
	return f.response, nil
}

// registerFixed registers what the checks are compared with: the services fixed.Granted, fixed.Denied and fixed.Empty, which are like
// Envoy's. The first two return the responses of a service to a granted and to a denied check, made in advance.
func registerFixed(registrar grpc.ServiceRegistrar, service authv3.AuthorizationServer, key keys.Key) {
	register := func(name string, response *authv3.CheckResponse) {
		description := authv3.Authorization_ServiceDesc
		description.ServiceName = name
		registrar.RegisterService(&description, fixedGRPC{response: response})
	}
	register("fixed.Granted", responseTo(service, key.Namespace, key.Token))
	register("fixed.Denied", responseTo(service, key.Namespace, unknown(key.Token)))
	register("fixed.Empty", &authv3.CheckResponse{Status: &rpcstatus.Status{}})
}

func responseTo(service authv3.AuthorizationServer, namespace, token string) *authv3.CheckResponse {
	response, err := service.Check(context.Background(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"namespace": namespace},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodGet, Headers: map[string]string{"x-api-key": token},
		}},
	}})
	if err != nil {
		panic(err) // Check returns no error
	}
	return response
}

// registered keeps the service that is registered.
type registered struct {
	grpc.ServiceRegistrar
	service authv3.AuthorizationServer
}

// RegisterService implements grpc.ServiceRegistrar.
func (r *registered) RegisterService(description *grpc.ServiceDesc, service any) {
	r.ServiceRegistrar.RegisterService(description, service)
	r.service, _ = service.(authv3.AuthorizationServer)
}

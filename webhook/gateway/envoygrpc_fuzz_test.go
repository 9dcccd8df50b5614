// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"k8s.io/apimachinery/pkg/util/validation"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// FuzzCheck compares the response to a check with that of an HTTP protocol to the same request.
func FuzzCheck(f *testing.F) {
	for form := range headerForms {
		for _, seed := range []*authv3.CheckRequest{
			newCheck(form, "GET", "X-API-Key: "+readToken),
			newCheck(form, "POST", "X-API-Key: "+readToken),
			newCheck(form, "PUT", "Authorization: Bearer "+writeToken),
			newCheck(form, "GET", "X-API-Key: "+bothToken, "Authorization: Basic abc"),
			newCheck(form, "GET", "X-API-Key: "+readToken, "x-api-key: "+readToken),
			newCheck(form, "CONNECT", ":protocol: websocket", "X-API-Key: "+readToken),
			newCheck(form, "get", "X-API-Key: "+expiredToken),
			newCheck(form, "GET", "X-API-Key: "+readToken, "X-HTTP-Method-Override: DELETE", "X_Original_Method: GET, POST"),
			newCheck(form, "GET", "X-API-Key: "+readToken, "X-Forwarded-Method: GET", "Method: HEAD"),
			newCheck(form, "", "X-API-Key: "+readToken),
			checkOf(nil),
			{},
		} {
			content, err := proto.MarshalOptions{Deterministic: true}.Marshal(seed)
			framework.Must(f, err)
			f.Add(content)
		}
	}
	authenticator, options := setup{}.parts(f)
	var envoy implementation
	gateway.RegisterEnvoy(&envoy, authenticator, "", options)
	authenticator, options = setup{}.parts(f)
	handler := gateway.NewHandler(authenticator, options)

	f.Fuzz(func(t *testing.T, content []byte) {
		check := &authv3.CheckRequest{}
		if proto.Unmarshal(content, check) != nil {
			return
		}
		want := inGRPC(expectedResponse(t, handler, check))
		got, err := envoy.Check(t.Context(), check)
		framework.Must(t, err)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("the response to %v differs (-want +got):\n%s", check, diff)
		}
	})
}

// implementation is a registrar that keeps the registered service.
type implementation struct{ authv3.AuthorizationServer }

func (i *implementation) RegisterService(_ *grpc.ServiceDesc, service any) {
	i.AuthorizationServer = service.(authv3.AuthorizationServer)
}

// expectedResponse sends the check as Traefik does, and returns the response and the header with the credential.
func expectedResponse(t *testing.T, handler http.Handler, check *authv3.CheckRequest) (want response, credentialHeader string) {
	t.Helper()
	request := check.GetAttributes().GetRequest().GetHttp()
	namespace := check.GetAttributes().GetContextExtensions()["namespace"]
	method := request.GetMethod()
	headers, websocket := http.Header{}, 0
	add := func(name, value string) {
		switch canonical := http.CanonicalHeaderKey(name); {
		case canonical == "X-Api-Key" || canonical == "Authorization":
			headers[canonical] = append(headers[canonical], value)
		case name == ":protocol" && value == "websocket":
			websocket++
		case name == ":protocol":
			websocket += 2
		case name == "X-Forwarded-Method": // the forward protocol has the method in this header
			headers["X-Real-Method"] = append(headers["X-Real-Method"], value)
		default:
			headers[name] = append(headers[name], value)
		}
	}
	for name, value := range request.GetHeaders() {
		add(name, value)
	}
	for _, header := range request.GetHeaderMap().GetHeaders() {
		if value := header.GetRawValue(); len(value) > 0 {
			add(header.GetKey(), string(value))
		} else {
			add(header.GetKey(), header.GetValue())
		}
	}
	if method == "CONNECT" && websocket == 1 {
		method = "GET"
	}
	switch {
	case method == "" || slices.ContainsFunc([]rune(method), func(r rune) bool { return !httpguts.IsTokenRune(r) }):
		return checkWithoutHTTP, ""
	case len(validation.IsDNS1123Label(namespace)) > 0:
		return checkWithoutNamespace, ""
	}
	httpRequest := httptest.NewRequestWithContext(t.Context(), "GET", "/auth/forward/"+namespace, nil)
	httpRequest.Header = headers
	credentialHeader = "authorization"
	if _, ok := headers["X-Api-Key"]; ok {
		credentialHeader = "x-api-key"
	}
	headers.Set("X-Forwarded-Method", method)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httpRequest)
	return read(t, recorder.Result()), credentialHeader
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/testing/protocmp"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// serveEnvoy serves envoy.service.auth.v3.Authorization on a real socket, and returns a client.
func (s setup) serveEnvoy(tb testing.TB, defaultNamespace string) envoyClient {
	tb.Helper()
	authenticator, options := s.parts(tb)
	return serveGRPC(tb, func(server *grpc.Server) { gateway.RegisterEnvoy(server, authenticator, defaultNamespace, options) })
}

func serveGRPC(tb testing.TB, register func(*grpc.Server)) envoyClient {
	tb.Helper()
	server := grpc.NewServer()
	register(server)
	listener, err := new(net.ListenConfig).Listen(context.WithoutCancel(tb.Context()), "tcp", "127.0.0.1:0")
	framework.Must(tb, err)
	go func() { _ = server.Serve(listener) }() // until it is stopped
	tb.Cleanup(server.Stop)
	connection, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	framework.Must(tb, err)
	tb.Cleanup(func() { _ = connection.Close() })
	return envoyClient{connection}
}

type envoyClient struct{ connection *grpc.ClientConn }

// check sends a check, and ends the test if it gets a gRPC error.
func (c envoyClient) check(tb testing.TB, check *authv3.CheckRequest) *authv3.CheckResponse {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	response, err := authv3.NewAuthorizationClient(c.connection).Check(ctx, check)
	framework.Must(tb, err)
	return response
}

// headerForms are the two forms of the headers of a request in a check. The headers are given as in HTTP/1.1.
var headerForms = map[string]func(request *authv3.AttributeContext_HttpRequest, headers []string){
	"headers": func(request *authv3.AttributeContext_HttpRequest, headers []string) {
		request.Headers = map[string]string{}
		for name, value := range eachHeader(headers) {
			value = strings.ToValidUTF8(value, "!")
			if first, ok := request.Headers[name]; ok {
				value = first + "," + value
			}
			request.Headers[name] = value
		}
	},
	"header_map": func(request *authv3.AttributeContext_HttpRequest, headers []string) {
		request.HeaderMap = &corev3.HeaderMap{}
		for name, value := range eachHeader(headers) {
			request.HeaderMap.Headers = append(request.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
	},
}

func eachHeader(headers []string) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for _, header := range headers {
			end := strings.Index(header[1:], ":") + 1 // the first colon may begin a pseudo-header
			if !yield(strings.ToLower(header[:end]), strings.TrimSpace(header[end+1:])) {
				return
			}
		}
	}
}

// newCheck returns the check of Envoy for a request in the namespace shop.
func newCheck(form, method string, headers ...string) *authv3.CheckRequest {
	request := &authv3.AttributeContext_HttpRequest{Method: method, Path: "/some/path", Host: "shop.example", Protocol: "HTTP/1.1"}
	headerForms[form](request, append([]string{":method: " + method, ":path: /some/path", ":authority: shop.example"}, headers...))
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request:           &authv3.AttributeContext_Request{Http: request},
		ContextExtensions: map[string]string{"namespace": "shop"},
	}}
}

// inGRPC converts an HTTP response to Envoy's protocol. Envoy must remove from a granted request the header with its credential, and those
// that override its method.
func inGRPC(a response, credentialHeader string) *authv3.CheckResponse {
	options := func(names ...string) (options []*corev3.HeaderValueOption) {
		for _, name := range names {
			options = append(options, &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: strings.ToLower(name), Value: a.Header[name]},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			})
		}
		return options
	}
	if a.Status == 200 {
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
				Headers:         options("X-Auth-App", "X-Auth-Namespace", "X-Auth-Key-Id", "X-Auth-Access"),
				HeadersToRemove: []string{credentialHeader, "x-http-method", "x-http-method-override", "x-method-override"},
			}},
		}
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(a.Header)), func(name string) bool { return name == "Content-Length" })
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(map[int]codes.Code{
			401: codes.Unauthenticated, 403: codes.PermissionDenied, 500: codes.Internal, 503: codes.Unavailable,
		}[a.Status])},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(a.Status)},
			Headers: options(names...),
			Body:    a.Body,
		}},
	}
}

func assertCheck(t *testing.T, client envoyClient, check *authv3.CheckRequest, want *authv3.CheckResponse) {
	t.Helper()
	if diff := cmp.Diff(want, client.check(t, check), protocmp.Transform()); diff != "" {
		t.Errorf("the response differs (-want +got):\n%s", diff)
	}
}

var (
	checkWithoutHTTP = errorResponse(500, "The check has no HTTP method in attributes.request.http: use Envoy's HTTP filter "+
		"envoy.filters.http.ext_authz, not its network filter, because API keys are in HTTP requests.")
	checkWithoutNamespace = errorResponse(500, "The check does not name a Kubernetes namespace: set context_extensions: "+
		"{namespace: ...} in Envoy's ext_authz settings of the virtual host or route, to 1 to 63 characters of a-z, 0-9 and '-', starting "+
		"and ending with a letter or digit. For a gateway that cannot set it (Istio), start the authenticator with --default-namespace.")
)

func TestEnvoyGRPC_DecidesAsTheHTTPProtocols(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	for form := range headerForms {
		for _, c := range credentialCases() {
			t.Run(form+"/"+c.name, func(t *testing.T) {
				used := "authorization"
				if slices.ContainsFunc(c.headers, func(header string) bool { return strings.HasPrefix(strings.ToLower(header), "x-api-key:") }) {
					used = "x-api-key"
				}
				assertCheck(t, client, newCheck(form, "GET", c.headers...), inGRPC(c.want, used))
			})
		}
		for _, c := range append(methodCases(), methodCase{"HEAD", readerGranted(), noReadAccess, methodCases()[0].owner}) {
			t.Run(form+"/"+c.method, func(t *testing.T) {
				assertCheck(t, client, newCheck(form, c.method, "X-API-Key: "+readToken), inGRPC(c.reader, "x-api-key"))
				assertCheck(t, client, newCheck(form, c.method, "X-API-Key: "+writeToken), inGRPC(c.writer, "x-api-key"))
				assertCheck(t, client, newCheck(form, c.method, "X-API-Key: "+bothToken), inGRPC(c.owner, "x-api-key"))
			})
		}
	}
}

func TestInvariant7_ARepeatedCredentialOfACheckIsRefused(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	inBothForms := newCheck("headers", "GET", "X-API-Key: "+readToken)
	headerForms["header_map"](inBothForms.Attributes.Request.Http, []string{"X-API-Key: " + readToken})
	inTwoCases := newCheck("headers", "GET")
	inTwoCases.Attributes.Request.Http.Headers = map[string]string{"x-api-key": readToken, "X-Api-Key": readToken}
	rawInTwoCases := newCheck("header_map", "GET", "X-API-Key: "+readToken, "X-API-Key: "+readToken)
	rawInTwoCases.Attributes.Request.Http.HeaderMap.Headers[3].Key = "X-API-KEY"
	for name, check := range map[string]*authv3.CheckRequest{
		"in both forms":        inBothForms,
		"in two cases":         inTwoCases,
		"in two cases, raw":    rawInTwoCases,
		"joined":               newCheck("headers", "GET", "X-API-Key: "+readToken, "X-API-Key: "+readToken),
		"joined, one is empty": newCheck("headers", "GET", "X-API-Key: "+readToken, "X-API-Key:"),
		"raw":                  newCheck("header_map", "GET", "X-API-Key: "+readToken, "X-API-Key: "+readToken),
		"raw, one is empty":    newCheck("header_map", "GET", "X-API-Key: "+readToken, "X-API-Key:"),
	} {
		t.Run(name, func(t *testing.T) { assertCheck(t, client, check, inGRPC(unauthenticated, "")) })
	}
}

func TestEnvoyGRPC_AcceptsATextValueOfARawHeader(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	check := newCheck("header_map", "GET")
	headers := check.Attributes.Request.Http.HeaderMap
	headers.Headers = append(headers.Headers, &corev3.HeaderValue{Key: "X-API-Key", Value: readToken})
	assertCheck(t, client, check, inGRPC(readerGranted(), "x-api-key"))
}

func TestInvariant7_ACheckWithoutMethodOrNamespaceIsRejected(t *testing.T) {
	key := "X-API-Key: " + bothToken
	withNamespace := func(namespace string) *authv3.CheckRequest {
		check := newCheck("headers", "GET", key)
		check.Attributes.ContextExtensions["namespace"] = namespace
		return check
	}
	withoutNamespace := newCheck("headers", "GET", key)
	withoutNamespace.Attributes.ContextExtensions = map[string]string{"Namespace": "shop"}
	for name, c := range map[string]struct {
		check *authv3.CheckRequest
		want  response
	}{
		"nothing":               {&authv3.CheckRequest{}, checkWithoutHTTP},
		"no attributes":         {&authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}, checkWithoutHTTP},
		"no request":            {checkOf(&authv3.AttributeContext_Request{}), checkWithoutHTTP},
		"empty HTTP":            {checkOf(&authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{}}), checkWithoutHTTP},
		"no method":             {newCheck("headers", "", key), checkWithoutHTTP},
		"no method, raw":        {newCheck("header_map", "", key), checkWithoutHTTP},
		"a method of two words": {newCheck("headers", "GET POST", key), checkWithoutHTTP},
		"a method with a comma": {newCheck("headers", "GET,POST", key), checkWithoutHTTP},
		"no namespace":          {withoutNamespace, checkWithoutNamespace},
		"an empty namespace":    {withNamespace(""), checkWithoutNamespace},
		"two namespaces":        {withNamespace("shop,other"), checkWithoutNamespace},
		"a path as namespace":   {withNamespace("../shop"), checkWithoutNamespace},
		"a long namespace":      {withNamespace(strings.Repeat("n", 64)), checkWithoutNamespace},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []setup{{}, {unsynced: true}} {
				assertCheck(t, s.serveEnvoy(t, ""), c.check, inGRPC(c.want, ""))
			}
		})
	}
}

func checkOf(request *authv3.AttributeContext_Request) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request:           request,
		ContextExtensions: map[string]string{"namespace": "shop"},
	}}
}

func TestEnvoyGRPC_UsesTheDefaultNamespaceOnlyIfTheCheckNamesNone(t *testing.T) {
	client := setup{}.serveEnvoy(t, "other")
	inOther := inGRPC(granted("reader", "other", "reader-uid", "read"), "x-api-key")

	unnamed := newCheck("headers", "GET", "X-API-Key: "+otherToken)
	unnamed.Attributes.ContextExtensions = nil
	assertCheck(t, client, unnamed, inOther)
	named := newCheck("headers", "GET", "X-API-Key: "+otherToken)
	assertCheck(t, client, named, inGRPC(unauthenticated, ""))
	empty := newCheck("headers", "GET", "X-API-Key: "+otherToken)
	empty.Attributes.ContextExtensions["namespace"] = ""
	assertCheck(t, client, empty, inGRPC(checkWithoutNamespace, ""))
}

func TestInvariant6_ACheckUsesTheKeysOfOneNamespace(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	for _, c := range []struct {
		namespace, token string
		want             response
	}{
		{"other", otherToken, granted("reader", "other", "reader-uid", "read")},
		{"other", readToken, unauthenticated},
		{"nowhere", readToken, unauthenticated},
		{strings.Repeat("n", 63), readToken, granted("reader", strings.Repeat("n", 63), "reader-uid", "read")},
	} {
		check := newCheck("headers", "GET", "X-API-Key: "+c.token)
		check.Attributes.ContextExtensions["namespace"] = c.namespace
		assertCheck(t, client, check, inGRPC(c.want, "x-api-key"))
	}
}

func TestInvariant4_ACheckBeforeTheSyncIsDeniedWith503(t *testing.T) {
	client := setup{unsynced: true}.serveEnvoy(t, "")
	for form := range headerForms {
		for _, key := range []string{readToken, "sq_unknown", "", "a, b"} {
			assertCheck(t, client, newCheck(form, "GET", "X-API-Key: "+key), inGRPC(unavailable, ""))
		}
	}
}

func TestEnvoyGRPC_InsufficientAccessStatusCanBe403(t *testing.T) {
	client := setup{insufficientAccessStatus: 403}.serveEnvoy(t, "")
	want := errorResponse(403, "API key does not have write access").
		and("Www-Authenticate", `Bearer realm="apikey-operator", error="insufficient_scope"`)
	assertCheck(t, client, newCheck("headers", "POST", "X-API-Key: "+readToken), inGRPC(want, ""))
	assertCheck(t, client, newCheck("headers", "POST"), inGRPC(unauthenticated, ""))
}

// A WebSocket over HTTP/2 is a CONNECT. Over HTTP/1.1 it is a GET, and Envoy shows a GET to its filters in both cases.
func TestEnvoyGRPC_AWebSocketNeedsReadAccess(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	key, upgrade := "X-API-Key: "+readToken, "Upgrade: websocket"
	for form := range headerForms {
		for _, c := range []struct {
			name, method string
			headers      []string
			want         response
		}{
			{"over HTTP/1.1", "GET", []string{"Connection: Upgrade", upgrade}, readerGranted()},
			{"over HTTP/2", "CONNECT", []string{":protocol: websocket"}, readerGranted()},
			{"a tunnel", "CONNECT", nil, noWriteAccess},
			{"a tunnel with the headers of a WebSocket", "CONNECT", []string{"Connection: Upgrade", upgrade, "protocol: websocket"}, noWriteAccess},
			{"another protocol", "CONNECT", []string{":protocol: connect-udp"}, noWriteAccess},
			{"two protocols", "CONNECT", []string{":protocol: websocket", ":protocol: websocket"}, noWriteAccess},
			{"not CONNECT", "POST", []string{":protocol: websocket", "Connection: Upgrade", upgrade}, noWriteAccess},
			{"a method in lower case", "connect", []string{":protocol: websocket"}, noWriteAccess},
		} {
			t.Run(form+"/"+c.name, func(t *testing.T) {
				assertCheck(t, client, newCheck(form, c.method, append(c.headers, key)...), inGRPC(c.want, "x-api-key"))
			})
		}
	}
}

func TestInvariant7_NoHeaderChangesTheMethodOfACheck(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	overriding := []string{"X-API-Key: " + readToken, "X-HTTP-Method-Override: GET", "X-HTTP-Method: GET", "X-Method-Override: GET",
		"X-Original-Method: GET", "X-Forwarded-Method: GET"}
	for form := range headerForms {
		assertCheck(t, client, newCheck(form, "DELETE", overriding...), inGRPC(noWriteAccess, ""))
	}
	contradictory := newCheck("headers", "DELETE", overriding...)
	contradictory.Attributes.Request.Http.Headers[":method"] = "GET"
	assertCheck(t, client, contradictory, inGRPC(noWriteAccess, ""))
}

func TestEnvoyGRPC_AcceptsLargeChecks(t *testing.T) {
	client := setup{}.serveEnvoy(t, "")
	headers := []string{"X-API-Key: " + readToken}
	for i := range 10_000 {
		headers = append(headers, "X-Header-"+strconv.Itoa(i)+": "+strings.Repeat("v", 100))
	}
	for form := range headerForms {
		check := newCheck(form, "GET", headers...)
		assertCheck(t, client, check, inGRPC(readerGranted(), "x-api-key"))
		check.Attributes.Request.Http.RawBody = make([]byte, 2<<20)
		assertCheck(t, client, check, inGRPC(readerGranted(), "x-api-key"))
	}
	for _, key := range []string{strings.Repeat("k", 1<<20), strings.Repeat(readToken+",", 10_000)} {
		assertCheck(t, client, newCheck("headers", "GET", "X-API-Key: "+key), inGRPC(unauthenticated, ""))
		assertCheck(t, client, newCheck("header_map", "GET", "X-API-Key: "+key), inGRPC(unauthenticated, ""))
	}
}

func TestEnvoyGRPC_CountsAndLogsChecks(t *testing.T) {
	var out bytes.Buffer
	registry := prometheus.NewRegistry()
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := setup{registry: registry, log: log}.serveEnvoy(t, "")
	client.check(t, newCheck("headers", "GET", "X-API-Key: "+readToken))
	client.check(t, newCheck("header_map", "GET", "X-API-Key: sq_unknown"))
	client.check(t, newCheck("headers", "GET", "X-API-Key: "+deactivatedToken))
	client.check(t, newCheck("headers", "POST", "X-API-Key: "+readToken))
	client.check(t, newCheck("headers", "", "X-API-Key: "+readToken))
	client.check(t, &authv3.CheckRequest{}) // within a minute of the other one

	got := gather(t, registry)
	maps.DeleteFunc(got, func(name string, _ float64) bool { return strings.HasPrefix(name, "apikey_keyring_") })
	if diff := cmp.Diff(map[string]float64{
		"apikey_authentications_total{envoy-grpc,granted}":         1,
		"apikey_authentications_total{envoy-grpc,unauthenticated}": 2,
		"apikey_authentications_total{envoy-grpc,forbidden}":       1,
		"apikey_authentications_total{envoy-grpc,malformed}":       2,
		"apikey_authentications_total{envoy-grpc,unavailable}":     0,
		"apikey_authentication_duration_seconds{envoy-grpc}":       6,
	}, got); diff != "" {
		t.Errorf("the metrics differ (-want +got):\n%s", diff)
	}
	denied := func(decision, reason, keyID string) map[string]any {
		line := map[string]any{"level": "DEBUG", "msg": "Denied", "protocol": "envoy-grpc", "namespace": "shop",
			"decision": decision, "reason": reason}
		if keyID != "" {
			line["keyID"] = keyID
		}
		return line
	}
	if diff := cmp.Diff([]map[string]any{
		denied("unauthenticated", "KeyUnknown", ""),
		denied("unauthenticated", "KeyDeactivated", "deactivated-uid"),
		denied("forbidden", "NoWriteAccess", "reader-uid"),
		{"level": "WARN", "protocol": "envoy-grpc", "msg": "A gateway is misconfigured: The check has no HTTP method in " +
			"attributes.request.http: use Envoy's HTTP filter envoy.filters.http.ext_authz, not its network filter, because API keys are in HTTP " +
			"requests."},
	}, logged(t, &out)); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

func TestInvariant1_NoTokenOfACheckAppearsInLogsOrMetrics(t *testing.T) {
	var out bytes.Buffer
	registry := prometheus.NewRegistry()
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := setup{registry: registry, log: log}.serveEnvoy(t, "")
	for form := range headerForms {
		client.check(t, newCheck(form, "sq_read", "X-API-Key: sq_read"))
		client.check(t, newCheck(form, "GET", "X-API-Key: sq_read sq_read", "Authorization: Bearer sq_read"))
		client.check(t, newCheck(form, "sq read", "X-API-Key: sq_read"))
		check := newCheck(form, "GET", "X-API-Key: sq_read")
		check.Attributes.ContextExtensions["namespace"] = "sq_read"
		client.check(t, check)
	}
	if out.Len() == 0 {
		t.Fatal("nothing was logged")
	}
	if strings.Contains(out.String(), "sq_") {
		t.Errorf("a token is in the log:\n%s", out.String())
	}
	for series := range gather(t, registry) {
		if strings.Contains(series, "sq_") {
			t.Errorf("a token is in the metrics: %s", series)
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http/httpguts"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"squirrel.dev/apikey-operator/internal/envelope"
	"squirrel.dev/apikey-operator/webhook/authn"
)

// namespaceExtension is the key of Envoy's context_extensions, which only its configuration can set, that names the namespace.
const namespaceExtension = "namespace"

// A check that asks no question is answered 500: the answer goes to the client, which can do nothing about it. It is an answer and no
// gRPC error: to an error Envoy may be told to open the door (failure_mode_allow). Only what is no check at all, because it is too large
// or cannot be decoded, ends in an error of gRPC itself.
var (
	noHTTP = newMisuse(http.StatusInternalServerError,
		"The check has no HTTP method in attributes.request.http: API keys come with HTTP requests, so let Envoy's HTTP filter "+
			"envoy.filters.http.ext_authz ask, not its network filter.")
	noNamespace = newMisuse(http.StatusInternalServerError,
		"The check must name the Kubernetes namespace of the keys: set context_extensions: {namespace: ...} in Envoy's ext_authz settings of "+
			"the virtual host or route, to 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit. For a gateway "+
			"that cannot set it (Istio), start the authenticator with --default-namespace.")
)

// envoyGRPC is Envoy's gRPC ext_authz filter, and what speaks its protocol (Envoy Gateway).
type envoyGRPC struct {
	authv3.UnimplementedAuthorizationServer
	desk             *desk
	defaultNamespace string
	denials          map[*envelope.Response]*authv3.CheckResponse
}

// RegisterEnvoy registers envoy.service.auth.v3.Authorization. A check without context_extensions["namespace"] is about the keys of
// defaultNamespace; when that is empty, it is refused.
func RegisterEnvoy(registrar grpc.ServiceRegistrar, authenticator *authn.Authenticator, defaultNamespace string, options Options) {
	e := &envoyGRPC{
		desk:             newDesk("envoy-grpc", authenticator, options),
		defaultNamespace: defaultNamespace,
		denials:          map[*envelope.Response]*authv3.CheckResponse{},
	}
	for _, answer := range append(e.desk.denials.All(), noHTTP.answer, noNamespace.answer) {
		e.denials[answer] = newDenial(answer)
	}
	authv3.RegisterAuthorizationServer(registrar, e)
}

// Check answers one check. It returns no error.
func (e *envoyGRPC) Check(ctx context.Context, check *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	start := time.Now()
	response, decision := e.answer(ctx, check.GetAttributes())
	e.desk.metrics.observe(decision, time.Since(start))
	return response, nil
}

func (e *envoyGRPC) answer(ctx context.Context, attributes *authv3.AttributeContext) (*authv3.CheckResponse, authn.Decision) {
	request := attributes.GetRequest().GetHttp()
	headers := headersOf(request)
	method := headers.methodOf(request)
	if !httpguts.ValidHeaderFieldName(method) { // field names are tokens, as methods are
		return e.refuse(noHTTP)
	}
	namespace, ok := attributes.GetContextExtensions()[namespaceExtension]
	if !ok {
		namespace = e.defaultNamespace
	}
	if !isDNSLabel(namespace) {
		return e.refuse(noNamespace)
	}
	verdict := e.desk.decide(ctx, authn.Request{
		Namespace:  namespace,
		Credential: authn.ExtractCredential(headers.apiKey, headers.authorization),
		Access:     authn.AccessFor(method) | headers.otherMethods.access(),
	})
	if verdict.Decision == authn.Granted {
		return newGrant(verdict.Key, headers.toRemove()), verdict.Decision
	}
	return e.denials[e.desk.denials.For(verdict)], verdict.Decision
}

func (e *envoyGRPC) refuse(m *misuse) (*authv3.CheckResponse, authn.Decision) {
	e.desk.warnOfMisuse(m.problem)
	return e.denials[m.answer], malformed
}

// checkedHeaders are all values of the headers that a check is decided by.
type checkedHeaders struct {
	apiKey        []string
	authorization []string
	protocol      []string
	otherMethods
}

const (
	apiKeyHeader        = "x-api-key"
	authorizationHeader = "authorization"
	protocolHeader      = ":protocol"
)

// headersOf finds them. Envoy fills one of two fields: headers, where it joins the values of a header that was sent more than once with
// a comma, or, with encode_raw_headers, header_map, where each stands by itself. What is in both was sent twice.
func headersOf(request *authv3.AttributeContext_HttpRequest) checkedHeaders {
	var found checkedHeaders
	for name, value := range request.GetHeaders() {
		if values := found.valuesOf(name); values != nil {
			*values = append(*values, value)
		}
	}
	for _, header := range request.GetHeaderMap().GetHeaders() {
		if values := found.valuesOf(header.GetKey()); values != nil {
			*values = append(*values, cmp.Or(string(header.GetRawValue()), header.GetValue()))
		}
	}
	return found
}

// valuesOf returns where the values of a header are kept, or nil. Header names are compared as ASCII: with equal lengths, EqualFold finds
// no other letters that fold to these.
func (h *checkedHeaders) valuesOf(name string) *[]string {
	switch {
	case len(name) == len(apiKeyHeader) && strings.EqualFold(name, apiKeyHeader):
		return &h.apiKey
	case len(name) == len(authorizationHeader) && strings.EqualFold(name, authorizationHeader):
		return &h.authorization
	case name == protocolHeader:
		return &h.protocol
	default:
		return h.otherMethods.listFor(name)
	}
}

// methodOf returns the method of a request. A WebSocket over HTTP/2 or HTTP/3, an extended CONNECT (RFC 8441, RFC 9220), counts as the
// GET that it is over HTTP/1.1. Envoy itself makes that GET of it before its filters see it; what else speaks its protocol may pass it on
// as it came. No client can send a header of the name :protocol, as the colon makes it a pseudo-header.
func (h *checkedHeaders) methodOf(request *authv3.AttributeContext_HttpRequest) string {
	method := request.GetMethod()
	if method == http.MethodConnect && len(h.protocol) == 1 && h.protocol[0] == "websocket" {
		return http.MethodGet
	}
	return method
}

// What a request that passes loses, as headers_to_remove: the header that its credential was in, and those by which a service might take
// it for a request of another method.
var (
	removeAPIKey        = append([]string{apiKeyHeader}, overrideHeaders()...)
	removeAuthorization = append([]string{authorizationHeader}, overrideHeaders()...)
)

// toRemove returns those of a request with a good key.
func (h *checkedHeaders) toRemove() []string {
	if len(h.apiKey) > 0 {
		return removeAPIKey // Authorization then belongs to somebody else
	}
	return removeAuthorization
}

// grant is the parts of an answer that lets a request pass. One is made for each request: together, they are allocated at once.
type grant struct {
	response authv3.CheckResponse
	result   authv3.CheckResponse_OkResponse
	ok       authv3.OkHttpResponse
	headers  [4]*corev3.HeaderValueOption
	options  [4]corev3.HeaderValueOption
	values   [4]corev3.HeaderValue
}

var statusOK = &rpcstatus.Status{Code: int32(codes.OK)}

// newGrant lets a request pass with the identity that writeGranted describes, and without the headers to remove.
func newGrant(key *authn.Key, toRemove []string) *authv3.CheckResponse {
	g := &grant{}
	for i, header := range [len(g.headers)]struct{ name, value string }{
		{"x-auth-app", percentEncode(key.AppName)},
		{"x-auth-namespace", key.Namespace},
		{"x-auth-key-id", key.UID},
		{"x-auth-access", key.Access.String()},
	} {
		g.headers[i] = overwrite(&g.options[i], &g.values[i], header.name, header.value)
	}
	g.ok.Headers, g.ok.HeadersToRemove = g.headers[:], toRemove
	g.result.OkResponse = &g.ok
	g.response.Status, g.response.HttpResponse = statusOK, &g.result
	return &g.response
}

// newDenial lets Envoy answer the client as the HTTP protocols answer.
func newDenial(answer *envelope.Response) *authv3.CheckResponse {
	denied := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(answer.Status)},
		Body:   string(answer.Body),
	}
	for _, name := range slices.Sorted(maps.Keys(answer.Header)) {
		denied.Headers = append(denied.Headers,
			overwrite(&corev3.HeaderValueOption{}, &corev3.HeaderValue{}, strings.ToLower(name), answer.Header.Get(name)))
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codeOf[answer.Status])},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied},
	}
}

// codeOf says in gRPC what an HTTP status says (google/rpc/code.proto). Envoy only tells OK from the rest.
var codeOf = map[int]codes.Code{
	http.StatusUnauthorized:        codes.Unauthenticated,
	http.StatusForbidden:           codes.PermissionDenied,
	http.StatusInternalServerError: codes.Internal,
	http.StatusServiceUnavailable:  codes.Unavailable,
}

// overwrite makes of an empty option and value one that sets a header in place of all values that it had. Envoys that know no
// append_action do so by default.
func overwrite(option *corev3.HeaderValueOption, header *corev3.HeaderValue, name, value string) *corev3.HeaderValueOption {
	header.Key, header.Value = name, value
	option.Header, option.AppendAction = header, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	return option
}

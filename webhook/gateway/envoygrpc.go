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

// namespaceExtension is the key of the namespace in Envoy's context_extensions, which only Envoy's configuration can set.
const namespaceExtension = "namespace"

// The response to a misconfigured gateway is 500: Envoy passes it to the client, which cannot correct it. It is not a gRPC error, on which
// Envoy can be configured to let requests pass (failure_mode_allow). gRPC itself returns an error for a message that is too large or cannot
// be decoded.
var (
	noHTTP = newConfigError(http.StatusInternalServerError,
		"The check has no HTTP method in attributes.request.http: use Envoy's HTTP filter envoy.filters.http.ext_authz, not its network "+
			"filter, because API keys are in HTTP requests.")
	noNamespace = newConfigError(http.StatusInternalServerError,
		"The check does not name a Kubernetes namespace: set context_extensions: {namespace: ...} in Envoy's ext_authz settings of the "+
			"virtual host or route, to 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit. For a gateway "+
			"that cannot set it (Istio), start the authenticator with --default-namespace.")
)

// envoyGRPC is the gRPC protocol of Envoy's ext_authz filter, which Envoy Gateway also uses.
type envoyGRPC struct {
	authv3.UnimplementedAuthorizationServer
	checker          *checker
	defaultNamespace string
	denials          map[*envelope.Response]*authv3.CheckResponse
}

// RegisterEnvoy registers envoy.service.auth.v3.Authorization. A check without context_extensions["namespace"] uses the keys of
// defaultNamespace. If that is empty too, the check is rejected.
func RegisterEnvoy(registrar grpc.ServiceRegistrar, authenticator *authn.Authenticator, defaultNamespace string, options Options) {
	e := &envoyGRPC{
		checker:          newChecker("envoy-grpc", authenticator, options),
		defaultNamespace: defaultNamespace,
		denials:          map[*envelope.Response]*authv3.CheckResponse{},
	}
	for _, response := range append(e.checker.denials.All(), noHTTP.response, noNamespace.response) {
		e.denials[response] = newDenial(response)
	}
	authv3.RegisterAuthorizationServer(registrar, e)
}

// Check returns the response to a check. It returns no error.
func (e *envoyGRPC) Check(ctx context.Context, check *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	start := time.Now()
	response, decision := e.check(ctx, check.GetAttributes())
	e.checker.metrics.observe(decision, time.Since(start))
	return response, nil
}

func (e *envoyGRPC) check(ctx context.Context, attributes *authv3.AttributeContext) (*authv3.CheckResponse, authn.Decision) {
	request := attributes.GetRequest().GetHttp()
	headers := readHeaders(request)
	method := headers.methodOf(request)
	if !httpguts.ValidHeaderFieldName(method) { // a field name is a token, as a method is
		return e.reject(noHTTP)
	}
	namespace, ok := attributes.GetContextExtensions()[namespaceExtension]
	if !ok {
		namespace = e.defaultNamespace
	}
	if !isDNSLabel(namespace) {
		return e.reject(noNamespace)
	}
	verdict := e.checker.check(ctx, authn.Request{
		Namespace:  namespace,
		Credential: authn.ExtractCredential(headers.apiKey, headers.authorization),
		Access:     authn.AccessFor(method) | headers.namedMethods.access(),
	})
	if verdict.Decision == authn.Granted {
		return newGrant(verdict.Key, headers.toRemove()), verdict.Decision
	}
	return e.denials[e.checker.denials.For(verdict)], verdict.Decision
}

func (e *envoyGRPC) reject(err *configError) (*authv3.CheckResponse, authn.Decision) {
	e.checker.warnOfConfig(err.message)
	return e.denials[err.response], malformed
}

// checkedHeaders are the values of the headers that a check reads.
type checkedHeaders struct {
	apiKey        []string
	authorization []string
	protocol      []string
	namedMethods
}

const (
	apiKeyHeader        = "x-api-key"
	authorizationHeader = "authorization"
	protocolHeader      = ":protocol"
)

// readHeaders reads the headers of a request. Envoy fills one of two fields: headers, where it joins the values of a repeated header with
// a comma, or, with encode_raw_headers, header_map, which has each value apart. A header in both fields counts as repeated.
func readHeaders(request *authv3.AttributeContext_HttpRequest) checkedHeaders {
	var headers checkedHeaders
	for name, value := range request.GetHeaders() {
		if values := headers.valuesOf(name); values != nil {
			*values = append(*values, value)
		}
	}
	for _, header := range request.GetHeaderMap().GetHeaders() {
		if values := headers.valuesOf(header.GetKey()); values != nil {
			*values = append(*values, cmp.Or(string(header.GetRawValue()), header.GetValue()))
		}
	}
	return headers
}

// valuesOf returns the list that the values of a header belong to, or nil. With equal lengths, EqualFold compares these names as ASCII:
// all other letters that fold to theirs are longer.
func (h *checkedHeaders) valuesOf(name string) *[]string {
	switch {
	case len(name) == len(apiKeyHeader) && strings.EqualFold(name, apiKeyHeader):
		return &h.apiKey
	case len(name) == len(authorizationHeader) && strings.EqualFold(name, authorizationHeader):
		return &h.authorization
	case name == protocolHeader:
		return &h.protocol
	default:
		return h.namedMethods.listFor(name)
	}
}

// methodOf returns the method of a request. A WebSocket over HTTP/2 or HTTP/3 is an extended CONNECT (RFC 8441, RFC 9220). It counts as
// GET, as over HTTP/1.1. Envoy converts it to a GET before its filters; other gateways with this protocol may not. No client can send a
// header named :protocol, because the colon makes it a pseudo-header.
func (h *checkedHeaders) methodOf(request *authv3.AttributeContext_HttpRequest) string {
	method := request.GetMethod()
	if method == http.MethodConnect && len(h.protocol) == 1 && h.protocol[0] == "websocket" {
		return http.MethodGet
	}
	return method
}

// The headers_to_remove of a granted request: the header with its credential, and the headers that override its method.
var (
	removeAPIKey        = append([]string{apiKeyHeader}, overrideHeaders()...)
	removeAuthorization = append([]string{authorizationHeader}, overrideHeaders()...)
)

// toRemove returns the headers to remove from a granted request.
func (h *checkedHeaders) toRemove() []string {
	if len(h.apiKey) > 0 {
		return removeAPIKey // Authorization is then for the service
	}
	return removeAuthorization
}

// grant holds all parts of the response to a granted request, so that they need one allocation.
type grant struct {
	response authv3.CheckResponse
	result   authv3.CheckResponse_OkResponse
	ok       authv3.OkHttpResponse
	headers  [len(identityHeaders)]*corev3.HeaderValueOption
	options  [len(identityHeaders)]corev3.HeaderValueOption
	values   [len(identityHeaders)]corev3.HeaderValue
}

var (
	statusOK = &rpcstatus.Status{Code: int32(codes.OK)}

	// identityHeadersHTTP2 are the identityHeaders in lower case.
	identityHeadersHTTP2 = strings.Fields(strings.ToLower(strings.Join(identityHeaders[:], " ")))
)

// newGrant returns the response that lets a request pass: it sets the identityHeaders and removes other headers.
func newGrant(key *authn.Key, toRemove []string) *authv3.CheckResponse {
	g := &grant{}
	for i, value := range identityOf(key) {
		g.headers[i] = fillOption(&g.options[i], &g.values[i], identityHeadersHTTP2[i], value)
	}
	g.ok.Headers, g.ok.HeadersToRemove = g.headers[:], toRemove
	g.result.OkResponse = &g.ok
	g.response.Status, g.response.HttpResponse = statusOK, &g.result
	return &g.response
}

// newDenial converts a response of the HTTP protocols, which Envoy sends to the client.
func newDenial(response *envelope.Response) *authv3.CheckResponse {
	denied := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(response.Status)},
		Body:   string(response.Body),
	}
	for _, name := range slices.Sorted(maps.Keys(response.Header)) {
		denied.Headers = append(denied.Headers,
			fillOption(&corev3.HeaderValueOption{}, &corev3.HeaderValue{}, strings.ToLower(name), response.Header.Get(name)))
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codeOf[response.Status])},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied},
	}
}

// codeOf maps HTTP statuses to gRPC codes (google/rpc/code.proto). Envoy distinguishes only OK from the others.
var codeOf = map[int]codes.Code{
	http.StatusUnauthorized:        codes.Unauthenticated,
	http.StatusForbidden:           codes.PermissionDenied,
	http.StatusInternalServerError: codes.Internal,
	http.StatusServiceUnavailable:  codes.Unavailable,
}

// fillOption fills an option that replaces all values of a header. Versions of Envoy without append_action do so by default.
func fillOption(option *corev3.HeaderValueOption, header *corev3.HeaderValue, name, value string) *corev3.HeaderValueOption {
	header.Key, header.Value = name, value
	option.Header, option.AppendAction = header, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	return option
}

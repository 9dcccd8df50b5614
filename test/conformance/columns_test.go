// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// column is a protocol.
type column struct {
	name string
	// users are the gateways with this protocol, and program is the real one that the tests run.
	users, program string
	// check returns the name of the response in the table, or the whole response if it is none of these.
	check func(f *fixture, c check) string
}

// columns are all protocols. Introspection has two columns: the token to check, and the key of the caller.
var columns = [len(cells{})]column{
	{"Envoy, HTTP", "Envoy and Istio with HTTP ext_authz, Cilium and agentgateway with Gateway API's ExternalAuth filter", "none: no Envoy is run", checkEnvoy},
	{"Envoy, gRPC", "Envoy, Envoy Gateway and Contour with gRPC ext_authz", "a client with the types of go-control-plane; no Envoy is run", checkEnvoyGRPC},
	{"nginx", "nginx with auth_request, ingress-nginx with auth-url", "nginx, also set up as ingress-nginx does", checkNginx},
	{"NGINX Gateway Fabric", "NGINX Gateway Fabric with Gateway API's ExternalAuth filter", "nginx, set up as NGINX Gateway Fabric does", checkFabric},
	{"forward", "Caddy with forward_auth, HAProxy with Lua, Traefik with ForwardAuth, APISIX with forward-auth", "Caddy and HAProxy; Traefik and APISIX are not run", checkForward},
	{"TokenReview", "kube-apiserver with a token webhook", "kube-apiserver", checkTokenReview},
	{"introspection", "an OAuth 2.0 resource server (RFC 7662), the token to check", "Apache httpd with mod_oauth2", checkIntrospection},
	{"introspection, own key", "the same, its own key", "Apache httpd with mod_oauth2", checkOwnKey},
}

// checkEnvoy sends the check with the method of the client's request, and its path behind that of the endpoint.
func checkEnvoy(f *fixture, c check) string {
	header := c.header()
	if c.wrongEndpoint {
		header.Set("X-Original-Method", "GET")
	}
	got := f.server(c).send(f, c.methods[0], "/auth/envoy/"+c.namespace+c.uri, header, "")
	return nameOf(got, denials(challenge), grantedTo(f.keys[c.key]))
}

// checkEnvoyGRPC sends the check with both forms of headers that Envoy has.
func checkEnvoyGRPC(f *fixture, c check) string {
	joined, raw := map[string]string{}, &corev3.HeaderMap{}
	header := c.header()
	if c.protocol != "" {
		header[":protocol"] = []string{c.protocol}
	}
	for name, values := range header {
		name = strings.ToLower(name)
		joined[name] = strings.Join(values, ",")
		for _, value := range values {
			raw.Headers = append(raw.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
	}
	method := strings.Join(c.methods, "")
	first := f.server(c).check(f, c.namespace, &authv3.AttributeContext_HttpRequest{Method: method, Path: c.uri, Headers: joined})
	second := f.server(c).check(f, c.namespace, &authv3.AttributeContext_HttpRequest{Method: method, Path: c.uri, HeaderMap: raw})
	if !first.equals(second) {
		return fmt.Sprintf("%+v for headers, %+v for header_map", first, second)
	}
	credential := "x-api-key"
	if _, ok := header["X-Api-Key"]; !ok {
		credential = "authorization"
	}
	return nameOf(first, denials(challenge), grantedOverGRPC(f.keys[c.key], credential))
}

func checkNginx(f *fixture, c check) string {
	return checkWithMethodIn("X-Original-Method", "X-Forwarded-Method", "/auth/nginx/", f, c)
}

func checkFabric(f *fixture, c check) string {
	return checkWithMethodIn("Method", "X-Original-Method", "/auth/nginx-gateway-fabric/", f, c)
}

func checkForward(f *fixture, c check) string {
	return checkWithMethodIn("X-Forwarded-Method", "X-Original-Method", "/auth/forward/", f, c)
}

func checkWithMethodIn(methodHeader, anotherHeader, endpoint string, f *fixture, c check) string {
	if c.wrongEndpoint {
		methodHeader = anotherHeader
	}
	header := c.header()
	header[methodHeader] = c.methods
	header.Set("X-Forwarded-Uri", c.uri)
	got := f.server(c).send(f, http.MethodGet, endpoint+c.namespace, header, "")
	return nameOf(got, denials(challenge), grantedTo(f.keys[c.key]))
}

func checkTokenReview(f *fixture, c check) string {
	fields := make([]string, len(c.tokens))
	for i, token := range c.tokens {
		fields[i] = fmt.Sprintf(`"token":%q`, token)
	}
	body := `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{` + strings.Join(fields, ",") + `}}`
	got := f.server(c).send(f, http.MethodPost, "/auth/tokenreview/"+c.namespace+c.query(),
		http.Header{"Content-Type": {"application/json"}}, body)
	return nameOf(got, denials(challenge), reviewed(f.keys[c.key]))
}

// checkIntrospection authenticates with a key that has read access.
func checkIntrospection(f *fixture, c check) string {
	got := introspect(f, c, http.Header{"X-Api-Key": {f.keys["both"].token}}, c.tokens)
	return nameOf(got, denials(challenge), introspected(f.keys[c.key]))
}

// checkOwnKey checks a valid token, with the key of the check as its own key.
func checkOwnKey(f *fixture, c check) string {
	got := introspect(f, c, c.header(), []string{f.keys["both"].token})
	return nameOf(got, denials(challenge+" | "+basicChallenge), map[string]response{granted: introspected(f.keys["both"])[validBoth]})
}

func introspect(f *fixture, c check, header http.Header, tokens []string) response {
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	return f.server(c).send(f, http.MethodPost, "/auth/introspect/"+c.namespace+c.query(), header, url.Values{"token": tokens}.Encode())
}

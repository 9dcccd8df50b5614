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

// column is a way to ask.
type column struct {
	name string
	// asker says who asks in this way, and proof which real program is seen doing so.
	asker, proof string
	// ask returns the answer: in a word of the table when it is exactly that, else all of it.
	ask func(f *fixture, q question) string
}

// columns are all ways. Introspection is two: the token that it is about, and the key that whoever asks about it presents.
var columns = [len(cells{})]column{
	{"Envoy, HTTP", "Envoy, Istio and Contour with HTTP ext_authz", "Envoy is not run", askEnvoy},
	{"Envoy, gRPC", "Envoy and Envoy Gateway with gRPC ext_authz", "a client with the types of go-control-plane; Envoy is not run", askEnvoyGRPC},
	{"nginx", "nginx with auth_request", "nginx", askNginx},
	{"NGINX Gateway Fabric", "NGINX Gateway Fabric with Gateway API's ExternalAuth filter", "nginx, set up as NGINX Gateway Fabric does", askFabric},
	{"forward", "Caddy with forward_auth, Traefik with ForwardAuth", "Caddy; Traefik is not run", askForward},
	{"TokenReview", "kube-apiserver with a token webhook", "kube-apiserver", askTokenReview},
	{"introspection", "an OAuth 2.0 resource server (RFC 7662), about a token", "Apache httpd with mod_oauth2", askIntrospection},
	{"introspection, own key", "the same, presenting its own key", "Apache httpd with mod_oauth2", presentOwnKey},
}

// askEnvoy asks with the client's method, and with its path behind the endpoint's.
func askEnvoy(f *fixture, q question) string {
	header := q.header()
	if q.atAnothers {
		header.Set("X-Original-Method", "GET")
	}
	got := f.server(q).send(f, q.methods[0], "/auth/envoy/"+q.namespace+q.uri, header, "")
	return inWords(got, refusals(challenge), grantedTo(f.keys[q.key]))
}

// askEnvoyGRPC asks in both forms in which Envoy sends headers.
func askEnvoyGRPC(f *fixture, q question) string {
	joined, raw := map[string]string{}, &corev3.HeaderMap{}
	header := q.header()
	if q.protocol != "" {
		header[":protocol"] = []string{q.protocol}
	}
	for name, values := range header {
		name = strings.ToLower(name)
		joined[name] = strings.Join(values, ",")
		for _, value := range values {
			raw.Headers = append(raw.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
	}
	method := strings.Join(q.methods, "")
	first := f.server(q).check(f, q.namespace, &authv3.AttributeContext_HttpRequest{Method: method, Path: q.uri, Headers: joined})
	second := f.server(q).check(f, q.namespace, &authv3.AttributeContext_HttpRequest{Method: method, Path: q.uri, HeaderMap: raw})
	if !first.equals(second) {
		return fmt.Sprintf("%+v to headers, %+v to header_map", first, second)
	}
	credential := "x-api-key"
	if _, ok := header["X-Api-Key"]; !ok {
		credential = "authorization"
	}
	return inWords(first, refusals(challenge), passedOn(f.keys[q.key], credential))
}

func askNginx(f *fixture, q question) string {
	return askWithMethodIn("X-Original-Method", "X-Forwarded-Method", "/auth/nginx/", f, q)
}

func askFabric(f *fixture, q question) string {
	return askWithMethodIn("Method", "X-Original-Method", "/auth/nginx-gateway-fabric/", f, q)
}

func askForward(f *fixture, q question) string {
	return askWithMethodIn("X-Forwarded-Method", "X-Original-Method", "/auth/forward/", f, q)
}

func askWithMethodIn(methodHeader, anothers, endpoint string, f *fixture, q question) string {
	if q.atAnothers {
		methodHeader = anothers
	}
	header := q.header()
	header[methodHeader] = q.methods
	header.Set("X-Forwarded-Uri", q.uri)
	got := f.server(q).send(f, http.MethodGet, endpoint+q.namespace, header, "")
	return inWords(got, refusals(challenge), grantedTo(f.keys[q.key]))
}

func askTokenReview(f *fixture, q question) string {
	fields := make([]string, len(q.tokens))
	for i, token := range q.tokens {
		fields[i] = fmt.Sprintf(`"token":%q`, token)
	}
	body := `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{` + strings.Join(fields, ",") + `}}`
	got := f.server(q).send(f, http.MethodPost, "/auth/tokenreview/"+q.namespace+q.query(),
		http.Header{"Content-Type": {"application/json"}}, body)
	return inWords(got, refusals(challenge), reviewed(f.keys[q.key]))
}

// askIntrospection presents a key that may read.
func askIntrospection(f *fixture, q question) string {
	got := introspect(f, q, http.Header{"X-Api-Key": {f.keys["both"].token}}, q.tokens)
	return inWords(got, refusals(challenge), introspected(f.keys[q.key]))
}

// presentOwnKey asks about a good token.
func presentOwnKey(f *fixture, q question) string {
	got := introspect(f, q, q.header(), []string{f.keys["both"].token})
	return inWords(got, refusals(challenge+" | "+basicChallenge), map[string]answer{granted: introspected(f.keys["both"])[toldBoth]})
}

func introspect(f *fixture, q question, header http.Header, tokens []string) answer {
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	return f.server(q).send(f, http.MethodPost, "/auth/introspect/"+q.namespace+q.query(), header, url.Values{"token": tokens}.Encode())
}

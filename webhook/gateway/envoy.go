// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// envoy is Envoy's HTTP ext_authz filter, and what configures it (Istio, Contour). It asks with the method of the original request, and
// with that request's path behind a prefix of its own.
var envoy = protocol{
	name:        "envoy",
	path:        "/auth/envoy/{namespace}/...",
	appendsPath: true,
	pathHelp: " The dots stand for the client's path, which Envoy appends. A gateway that asks one fixed path does not ask with the " +
		"client's method either: let it ask another endpoint, such as /auth/nginx/{namespace}.",
	answer: aboutRequest(methodSource{help: "/auth/envoy takes the method of the request itself, and refuses a request with a header by " +
		"which gateways name another one, such as Method, X-Original-Method or X-Forwarded-Method: let nginx ask /auth/nginx/{namespace}, " +
		"let NGINX Gateway Fabric ask /auth/nginx-gateway-fabric/{namespace}, let Traefik and Caddy ask /auth/forward/{namespace}, and let " +
		"Envoy not pass these headers on."}),
}

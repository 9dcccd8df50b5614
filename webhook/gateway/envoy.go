// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// envoy is the HTTP protocol of Envoy's ext_authz filter, also configured by Istio and Cilium. A check has the method of the client's
// request, and its path behind a prefix.
var envoy = protocol{
	name:        "envoy",
	path:        "/auth/envoy/{namespace}/...",
	appendsPath: true,
	pathHelp: " The dots stand for the path of the client's request, which Envoy appends. For a gateway that sends all checks to one path, " +
		"use another endpoint, such as /auth/nginx/{namespace}: it does not send the method of the client's request either.",
	serve: forwardAuth(methodSource{help: "/auth/envoy takes the method of the check itself, but a header of the check names the method of " +
		"the client's request, such as Method, X-Original-Method or X-Forwarded-Method. Use /auth/nginx/{namespace} for nginx, " +
		"/auth/nginx-gateway-fabric/{namespace} for NGINX Gateway Fabric, /auth/forward/{namespace} for Traefik and Caddy. " +
		"Configure Envoy not to send these headers."}),
}

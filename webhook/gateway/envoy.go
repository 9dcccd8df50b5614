// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import "net/http"

// envoy is Envoy's HTTP ext_authz filter, and what configures it (Istio, Contour). It asks with the method of the original request, and
// with that request's path behind a prefix of its own.
var envoy = protocol{
	name:      "envoy",
	path:      "/auth/envoy/{namespace}/...",
	openEnded: true,
	answer: aboutRequest(ownMethod,
		"/auth/envoy takes the method of the request itself, and refuses a request that carries X-Original-Method or "+
			"X-Forwarded-Method: let nginx ask /auth/nginx/{namespace}, let Traefik and Caddy ask /auth/forward/{namespace}, and let Envoy not "+
			"pass these headers on."),
}

func ownMethod(r *http.Request) (string, bool) {
	_, original := r.Header[originalMethod]
	_, forwarded := r.Header[forwardedMethod]
	return r.Method, !original && !forwarded
}

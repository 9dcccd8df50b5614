// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// traefikCaddy is the protocol of Traefik's ForwardAuth middleware and Caddy's forward_auth directive.
var traefikCaddy = protocol{
	name: "forward",
	path: "/auth/forward/{namespace}",
	serve: forwardAuth(methodSource{
		header: "X-Forwarded-Method",
		help: "Traefik's ForwardAuth and Caddy's forward_auth set it; configure any other gateway to set it to the method of the client's " +
			"request.",
	}),
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// forward is Traefik's ForwardAuth middleware and Caddy's forward_auth directive.
var forward = protocol{
	name: "forward",
	path: "/auth/forward/{namespace}",
	answer: aboutRequest(methodSource{
		header: "X-Forwarded-Method",
		help: "The X-Forwarded-Method header must hold the method of the original request, once: Traefik's ForwardAuth and Caddy's " +
			"forward_auth set it by themselves, any other gateway has to be told to.",
	}),
}

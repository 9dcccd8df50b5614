// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import "net/http"

// forwardedMethod is the header in which Traefik and Caddy send the original method.
const forwardedMethod = "X-Forwarded-Method"

// forward is Traefik's ForwardAuth middleware and Caddy's forward_auth directive.
var forward = protocol{
	name: "forward",
	path: "/auth/forward/{namespace}",
	answer: aboutRequest(func(r *http.Request) (string, bool) { return methodIn(r, forwardedMethod) },
		"The X-Forwarded-Method header must hold the method of the original request, once: Traefik's ForwardAuth and Caddy's "+
			"forward_auth set it by themselves, any other gateway has to be told to."),
}

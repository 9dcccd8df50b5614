// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// nginxGatewayFabric is the ExternalAuth filter of Gateway API as NGINX Gateway Fabric has it: auth_request asks one path, whatever the
// client's, with the client's method in a header of the name Method.
var nginxGatewayFabric = protocol{
	name: "nginx-gateway-fabric",
	path: "/auth/nginx-gateway-fabric/{namespace}",
	answer: aboutRequest(methodSource{
		header: "Method",
		help: "The Method header must hold the method of the original request, once: NGINX Gateway Fabric's ExternalAuth filter sets it by " +
			"itself, and any other gateway has another endpoint.",
	}),
}

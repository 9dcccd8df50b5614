// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// nginxGatewayFabric is the protocol of Gateway API's ExternalAuth filter in NGINX Gateway Fabric. It sends all checks to one path, with
// the method of the client's request in the header Method.
var nginxGatewayFabric = protocol{
	name: "nginx-gateway-fabric",
	path: "/auth/nginx-gateway-fabric/{namespace}",
	serve: forwardAuth(methodSource{
		header: "Method",
		help:   "The ExternalAuth filter of NGINX Gateway Fabric sets it; for any other gateway, use another endpoint.",
	}),
}

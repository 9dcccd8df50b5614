// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// nginx is nginx's auth_request module (ngx_http_auth_request_module). It sends no method by itself, so the header is one of our choosing.
var nginx = protocol{
	name: "nginx",
	path: "/auth/nginx/{namespace}",
	answer: aboutRequest(methodSource{
		header: "X-Original-Method",
		help: "The X-Original-Method header must hold the method of the original request, once: set it in the location that " +
			"auth_request asks, with proxy_set_header X-Original-Method $request_method;",
	}),
}

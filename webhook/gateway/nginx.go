// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

// nginx is the protocol of nginx's module ngx_http_auth_request_module. nginx sends no method by itself: its configuration adds the header.
var nginx = protocol{
	name: "nginx",
	path: "/auth/nginx/{namespace}",
	serve: forwardAuth(methodSource{
		header: "X-Original-Method",
		help:   "In the location that auth_request names, set proxy_set_header X-Original-Method $request_method;",
	}),
}

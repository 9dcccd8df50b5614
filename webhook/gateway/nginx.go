// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway

import "net/http"

// originalMethod is a header of our own choosing: auth_request itself sends no method, so that nginx must be told to.
const originalMethod = "X-Original-Method"

// nginx is nginx's auth_request module (ngx_http_auth_request_module).
var nginx = protocol{
	name: "nginx",
	path: "/auth/nginx/{namespace}",
	answer: aboutRequest(func(r *http.Request) (string, bool) { return methodIn(r, originalMethod) },
		"The X-Original-Method header must hold the method of the original request, once: set it in the location that "+
			"auth_request asks, with proxy_set_header X-Original-Method $request_method;"),
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"strings"
	"testing"
)

func TestHandler_TakesTheTargetUndecoded(t *testing.T) {
	address := setup{}.serve(t)
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	longest := strings.Repeat("n", 63)
	cases := []struct {
		target string
		want   response
	}{
		{"/auth/envoy/shop/", readGranted},
		{"/auth/envoy/shop/some/path", readGranted},
		{"/auth/envoy/shop//some//path//", readGranted},
		{"/auth/envoy/shop/../other/path", readGranted},
		{"/auth/envoy/shop/%2e%2e/other", readGranted},
		{"/auth/envoy/shop/..%2fother", readGranted},
		{"/auth/envoy/shop/auth/envoy/other/", readGranted},
		{"/auth/envoy/shop/a?b=/auth/envoy/other/", readGranted},
		{"/auth/envoy/shop/?a=b", readGranted},
		{"/auth/envoy/shop/a;b=c/@:$&'()*+,=!~", readGranted},
		{"/auth/envoy/shop/h\u00e4", readGranted},
		{"/auth/envoy/shop/#/other", readGranted},
		{"http://auth/auth/envoy/shop/path", readGranted},
		{"HTTPS://auth:8443/auth/envoy/shop/path", readGranted},
		{"http://auth/auth/envoy/shop/", readGranted},
		{"/auth/envoy/" + longest + "/", granted("reader", longest, "reader-uid", "read")},
		{"/auth/envoy/nowhere/", unauthenticated}, // the response does not reveal that the namespace has no keys

		// Envoy always appends a path.
		{"/auth/envoy/shop", wrongEnvoyPath},
		{"/auth/envoy/shop?a=b", wrongEnvoyPath},
		{"/auth/envoy/shop?/path", wrongEnvoyPath},
		{"http://auth/auth/envoy/shop", wrongEnvoyPath},

		{"/auth/envoy", wrongEnvoyPath},
		{"/auth/envoy/", wrongEnvoyPath},
		{"/auth/envoy//shop/", wrongEnvoyPath},
		{"/auth/envoy/./shop/", wrongEnvoyPath},
		{"/auth/envoy/../envoy/shop/", wrongEnvoyPath},
		{"/auth/envoy/shop*", wrongEnvoyPath},
		{"/auth/envoy/shop%2f", wrongEnvoyPath},
		{"/auth/envoy/shop%2Fother/", wrongEnvoyPath},
		{"/auth/envoy/%73hop/", wrongEnvoyPath},
		{"/auth/envoy/Shop/", wrongEnvoyPath},
		{"/auth/envoy/sh.op/", wrongEnvoyPath},
		{"/auth/envoy/sh_op/", wrongEnvoyPath},
		{"/auth/envoy/-shop/", wrongEnvoyPath},
		{"/auth/envoy/shop-/", wrongEnvoyPath},
		{"/auth/envoy/shop;a/", wrongEnvoyPath},
		{"/auth/envoy/sh\u00f6p/", wrongEnvoyPath},
		{"/auth/envoy/shop#/", wrongEnvoyPath},
		{"/auth/envoy/n" + longest + "/", wrongEnvoyPath},
		{"/auth/envoy?/shop/", wrongEnvoyPath},

		{"/", unknownPath},
		{"//", unknownPath},
		{"/auth", unknownPath},
		{"/auth/", unknownPath},
		{"//auth/envoy/shop/", unknownPath},
		{"/auth//envoy/shop/", unknownPath},
		{"/./auth/envoy/shop/", unknownPath},
		{"/a/../auth/envoy/shop/", unknownPath},
		{"/Auth/envoy/shop/", unknownPath},
		{"/auth/Envoy/shop/", unknownPath},
		{"/auth/%65nvoy/shop/", unknownPath},
		{"/%61uth/envoy/shop/", unknownPath},
		{"/auth/shop", unknownPath},
		{"/auth/traefik/shop", unknownPath},
		{"/auth?/envoy/shop/", unknownPath},
		{"/metrics", unknownPath},
		{"http://auth", unknownPath},
		{"http://auth?/auth/envoy/shop/", unknownPath},
		{"ftp://auth/auth/envoy/shop/", unknownPath},
		{"x:/auth/envoy/shop/", unknownPath},
		{"x:y?z=http://auth/auth/envoy/shop/", unknownPath},
		{"*", unknownPath},
	}
	for _, c := range cases {
		t.Run(c.target, func(t *testing.T) {
			assertResponse(t, send(t, address, head("GET "+c.target, "X-API-Key: "+readToken)), c.want)
		})
	}
}

func TestHandler_OtherEndpointsRejectAPathAfterTheNamespace(t *testing.T) {
	address := setup{}.serve(t)
	for _, c := range []struct {
		path, header string
		wrong        response
	}{
		{"/auth/nginx", "X-Original-Method: GET", wrongNginxPath},
		{"/auth/nginx-gateway-fabric", "Method: GET", wrongFabricPath},
		{"/auth/forward", "X-Forwarded-Method: GET", wrongForwardPath},
	} {
		for _, rest := range []string{"/shop", "/shop?", "/shop?a=b/c"} {
			assertResponse(t, send(t, address, head("GET "+c.path+rest, "X-API-Key: "+readToken, c.header)),
				granted("Frontend%20App", "shop", "reader-uid", "read"))
		}
		for _, rest := range []string{
			"", "/", "//", "//shop", "/shop/", "/shop//", "/shop/a", "/shop/..", "/..", "/../forward/shop", "/%73hop", "/shop%20", "/SHOP",
			"/shop%3f", "/shop.", "/" + strings.Repeat("n", 64), "?shop",
		} {
			assertResponse(t, send(t, address, head("GET "+c.path+rest, "X-API-Key: "+readToken, c.header)), c.wrong)
		}
	}
}

func TestHandler_ReportsAWrongPathBeforeAWrongMethod(t *testing.T) {
	address := setup{unsynced: true}.serve(t)
	assertResponse(t, send(t, address, head("GET /auth/nginx/")), wrongNginxPath)
	assertResponse(t, send(t, address, head("GET /auth/envoy/", "X-Original-Method: GET")), wrongEnvoyPath)
}

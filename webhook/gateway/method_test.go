// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"strings"
	"testing"
)

func TestInvariant7_NoMethodOrTwoMeanNoAccess(t *testing.T) {
	address := setup{}.serve(t)
	for _, unsynced := range []bool{false, true} { // who asks wrongly is told so in any case
		address := address
		if unsynced {
			address = setup{unsynced: true}.serve(t)
		}
		for _, c := range []struct {
			protocol, header string
			want             answer
		}{
			{"nginx", "X-Original-Method", wrongNginxMethod},
			{"forward", "X-Forwarded-Method", wrongForwardMethod},
		} {
			for _, headers := range []string{
				"",
				"H:",
				"H:  ",
				"H: GET\nH: GET",
				"H: GET\nH: POST",
				"H: GET\nH:",
				"H: GET, GET",
				"H: GET,",
				"H: G ET",
				"H: GÉT",
				"H: GET/",
				"H: \"GET\"",
				"X-Method: GET",
				"X-HTTP-Method-Override: GET",
				"X_Original_Method: GET\nX_Forwarded_Method: GET",
			} {
				t.Run(c.protocol+"/"+headers, func(t *testing.T) {
					lines := []string{"X-API-Key: " + bothToken}
					if headers != "" {
						lines = append(lines, strings.Split(strings.ReplaceAll(headers, "H:", c.header+":"), "\n")...)
					}
					assertAnswer(t, send(t, address, head("GET /auth/"+c.protocol+"/shop", lines...)), c.want)
				})
			}
		}
	}
}

func TestMethodIsReadFromOnePlaceOnly(t *testing.T) {
	address := setup{}.serve(t)
	readKey := "X-API-Key: " + readToken
	readGranted := granted("Frontend%20App", "shop", "reader-uid", "read")
	cases := []struct {
		name, request string
		want          answer
	}{
		{"nginx ignores X-Forwarded-Method",
			head("GET /auth/nginx/shop", readKey, "X-Original-Method: POST", "X-Forwarded-Method: GET"), noWriteAccess},
		{"nginx does not fall back to it", head("GET /auth/nginx/shop", readKey, "X-Forwarded-Method: GET"), wrongNginxMethod},
		{"forward ignores X-Original-Method",
			head("GET /auth/forward/shop", readKey, "X-Forwarded-Method: POST", "X-Original-Method: GET"), noWriteAccess},
		{"forward does not fall back to it", head("GET /auth/forward/shop", readKey, "X-Original-Method: GET"), wrongForwardMethod},
		{"X-HTTP-Method-Override is ignored", head("GET /auth/envoy/shop/", readKey, "X-HTTP-Method-Override: POST"), readGranted},
		{"a method in the query is ignored", head("GET /auth/nginx/shop?method=POST", readKey, "X-Original-Method: GET"), readGranted},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			assertAnswer(t, send(t, address, c.request), c.want)
		})
	}
}

func TestEnvoyEndpointRefusesTheHeadersOfOtherGateways(t *testing.T) {
	address := setup{}.serve(t)
	for _, header := range []string{
		"X-Original-Method: GET", "X-Original-Method:", "x-original-method: POST",
		"X-Forwarded-Method: GET", "X-Forwarded-Method:", "x-forwarded-method: POST",
	} {
		t.Run(header, func(t *testing.T) {
			assertAnswer(t, send(t, address, head("GET /auth/envoy/shop/", "X-API-Key: "+bothToken, header)), wrongEnvoyMethod)
			assertAnswer(t, send(t, address, head("GET /auth/envoy/shop/", header)), wrongEnvoyMethod)
		})
	}
}

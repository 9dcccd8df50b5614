// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// generatedProxies are gateways that generate a configuration of nginx from Kubernetes objects. The tests generate it in their place.
var generatedProxies = []proxy{fabric, ingressNginx}

func TestGeneratedProxies(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t), "retired-"+fabric.name, "retired-"+ingressNginx.name)
	authenticator := s.syncedAuthenticator().Address("authenticator")
	for _, proxy := range generatedProxies {
		t.Run(proxy.name, func(t *testing.T) {
			t.Parallel()
			f := proxy.startFront(s.in(t), authenticator)
			for name, test := range map[string]func(f *front){
				"the service receives the identity and no key":             theServiceReceivesNoKey,
				"the method decides the access":                            theMethodDecidesTheAccess,
				"no header overrides the method":                           noHeaderOverridesTheMethod,
				"the service receives the whole body":                      theServiceReceivesTheWholeBody,
				"invalid keys are denied":                                  invalidKeysAreDenied,
				"invariant 6: a key of another namespace is denied":        aKeyOfAnotherNamespaceIsDenied,
				"invariant 7: clients cannot forge headers of the gateway": clientsCannotForgeHeadersOfTheGateway,
				"no path selects another namespace":                        noPathSelectsAnotherNamespace,
				"insufficient access can be 403":                           insufficientAccessCanBe403,
				"a deactivated key is denied":                              aDeactivatedKeyIsDenied,
				"requests fail without an authenticator":                   requestsFailWithoutAnAuthenticator,
			} {
				t.Run(name, func(t *testing.T) { test(f.in(t)) })
			}
		})
	}
}

// The gateways remove Authorization also when the key is in X-API-Key.
func theServiceReceivesNoKey(f *front) {
	reader := f.keys["reader"]
	for what, headers := range map[string][]string{
		"in X-API-Key":     {f.apiKey("reader")},
		"in Authorization": {f.bearer("reader")},
		"in both":          {f.apiKey("reader"), f.bearer("reader")},
		"with Basic":       {f.apiKey("reader"), "Authorization: Basic c2hvcDpzaG9w"},
	} {
		r := f.forwarded(f.send("GET /articles?page=2&x=%2F..", append(headers, "Accept: text/plain", "Connection: Upgrade", "Upgrade: h2c")...))
		f.assertIdentity(r, reader, readersApp, "read")
		if r.Method != http.MethodGet || r.Target != "/articles?page=2&x=%2F.." || r.Header.Get("Accept") != "text/plain" {
			f.Errorf("a key %s: the service received %s %s %v", what, r.Method, r.Target, r.Header)
		}
		for _, removed := range []string{"Authorization", "X-Api-Key"} {
			if values := r.Header[removed]; values != nil {
				f.Errorf("a key %s: the service received %s: %q", what, removed, values)
			}
		}
		if r.Header["Upgrade"] != nil && strings.EqualFold(r.Header.Get("Connection"), "upgrade") { // without it, Upgrade means nothing
			f.Errorf("a key %s: the service received the upgrade %q", what, r.Header["Upgrade"])
		}
	}
}

// Of two X-API-Key headers nginx 1.22 sends the first. The versions in these gateways join them.
func invalidKeysAreDenied(f *front) {
	reader := f.keys["reader"].token
	for what, headers := range map[string][]string{
		"no key":             nil,
		"an unknown key":     {"X-API-Key: sq_unknown"},
		"two keys joined":    {"X-API-Key: " + reader + "," + reader},
		"another scheme":     {"Authorization: Basic " + reader},
		"a key in X_API_Key": {"X_API_Key: " + reader},
	} {
		a := f.expectDenied(what, http.StatusUnauthorized, func() response { return f.send("GET /", headers...) })
		if got := a.header["Www-Authenticate"]; !slices.Equal(got, []string{challenge}) {
			f.Errorf("%s: WWW-Authenticate is %q", what, got)
		}
	}
}

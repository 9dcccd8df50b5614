// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// apacheModules are the modules that its page names, and those that Debian enables by default.
var apacheModules = []string{
	"mpm_event", "authn_core", "authz_core", "oauth2", "headers", "proxy", "proxy_http", "ssl",
}

func startApache(t testing.TB, settings proxies.Settings, key string) string {
	t.Helper()
	address, introspection, dir := binaries.FreeAddress(t), binaries.FreeAddress(t), t.TempDir()
	_, port, _ := net.SplitHostPort(settings.Authenticator)
	configure(t, filepath.Join(dir, "shop.conf"), docsnippets.CodeBlock(t, "apache.md", "/etc/apache2/sites-available/shop.conf"), map[string]string{
		"Listen 8000":                      "Listen " + address,
		"<VirtualHost *:8000>":             "<VirtualHost " + address + ">",
		"127.0.0.1:8001":                   introspection,
		"/auth/introspect/shop":            "/auth/introspect/" + settings.Namespace,
		proxies.AuthenticatorName + ":443": "localhost:" + port,
		"/etc/apikey-operator/ca.crt":      settings.CAFile,
		"frontend.shop.svc:8080":           settings.Service,
	})
	var main strings.Builder
	for _, module := range apacheModules {
		fmt.Fprintf(&main, "LoadModule %s_module %s\n", module, binaries.Path(t, "debian", "usr", "lib", "apache2", "modules", "mod_"+module+".so"))
	}
	fmt.Fprintf(&main, "ServerName localhost\nServerRoot %s\nDefaultRuntimeDir %[1]s\nPidFile %[1]s/pid\nErrorLog /dev/stderr\nUser www-data\nGroup www-data\nInclude %[1]s/shop.conf\n", dir)
	file := filepath.Join(dir, "apache2.conf")
	framework.Must(t, os.WriteFile(file, []byte(main.String()), 0o600))
	return proxies.Start(t, address, process.Command{
		Path: binaries.Path(t, "debian", "usr", "sbin", "apache2"),
		Args: []string{"-D", "FOREGROUND", "-f", file},
		Env:  []string{binaries.DebianLibraryPath(t), "APIKEY=" + key},
	}).Address
}

// startFrontApache starts Apache in front of a service. It introspects tokens at this address, with the key apache.
func startFrontApache(s *shop, authenticator string) *front {
	s.Helper()
	f := &front{shop: s, service: startService(s)}
	f.address = startApache(s, proxies.Settings{
		Namespace: s.namespace, Authenticator: authenticator, CAFile: s.caFile, Service: f.service.address,
	}, s.keys["apache"].token)
	return f
}

func (s *shop) bearer(name string) string { return "Authorization: Bearer " + s.keys[name].token }

func TestApache_IntrospectsTokens(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t), "apache", "retired")
	f := startFrontApache(s, s.syncedAuthenticator().Address("authenticator"))

	reader := f.keys["reader"]
	for what, headers := range map[string][]string{
		"a request": nil,
		"a request with forged headers": {
			"X-Auth-App: Back%20office", "x-auth-key-id: 1", "X_Auth_App: Back%20office", "X-Auth-Key_Id: 1", "X-Auth-Scope: write",
			"X_Auth-Sub: 1", "X.Auth.App: Back%20office", "X!Auth!App: Back%20office", "X~Auth~Key~Id: 1", "X-Auth-client_id: Back%20office",
			"X-API-Key: " + reader.token, "Upgrade: h2c", "Connection: close, X-Auth-App", "Connection: X-Auth-Key-Id, X-Auth-scope",
		},
	} {
		r := f.forwarded(f.send("GET /articles?page=2", append(headers, "Authorization: Bearer "+reader.token)...))
		got := http.Header{}
		for name, values := range r.Header {
			plain := foldPunctuation(name)
			if strings.HasPrefix(plain, "x-auth-") || plain == "x-api-key" || plain == "authorization" || plain == "upgrade" {
				got[name] = values
			}
		}
		delete(got, "X-Auth-Iat")
		want := http.Header{
			"X-Auth-App": {readersApp}, "X-Auth-Client_id": {readersApp},
			"X-Auth-Key-Id": {reader.id}, "X-Auth-Sub": {reader.id},
			"X-Auth-Scope": {"read"}, "X-Auth-Iss": {"keys.squirrel.dev/" + f.namespace},
			"X-Auth-Active": {"true"}, "X-Auth-Token_type": {"Bearer"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the headers that the service received of %s differ (-want +got):\n%s", what, diff)
		}
		if r.Target != "/articles?page=2" || strings.Contains(fmt.Sprint(r), reader.token) {
			t.Errorf("of %s the service received %+v", what, r)
		}
	}

	for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		for _, spelling := range []string{header, strings.ToLower(header), strings.ReplaceAll(header, "-", "_")} {
			f.assertNotOverridden(f.forwarded(f.send("GET /", f.bearer("reader"), spelling+": DELETE", "Connection: "+spelling)))
			f.assertNotOverridden(f.forwarded(f.send("POST /", f.bearer("writer"), spelling+": GET", "Content-Length: 0")))
		}
	}

	for _, test := range []struct{ method, key string }{
		{"GET", "reader"}, {"HEAD", "reader"}, {"OPTIONS", "reader"}, {"POST", "writer"}, {"DELETE", "writer"}, {"GET", "both"}, {"POST", "both"},
	} {
		if a := f.send(test.method+" /", f.bearer(test.key), "Content-Length: 0"); a.status != http.StatusOK {
			t.Errorf("the response to %s with the key %s is %d %s", test.method, test.key, a.status, a.body)
		}
	}
	for _, test := range []struct{ method, key string }{
		{"POST", "reader"}, {"PROPFIND", "reader"}, {"GET", "writer"}, {"OPTIONS", "writer"}, {"GET", "stranger"}, {"GET", "unknown"},
	} {
		f.expectDenied(test.method+" with the key "+test.key, http.StatusUnauthorized, func() response {
			return f.send(test.method+" /", f.bearer(test.key), "Content-Length: 0")
		})
	}
	f.expectDenied("a request without a key", http.StatusUnauthorized, func() response { return f.send("GET /") })

	f.forwarded(f.send("GET /", f.bearer("retired")))
	f.deactivate("retired")
	framework.Eventually(f, "the deactivated key is denied", func() bool { return f.send("GET /", f.bearer("retired")).status == http.StatusUnauthorized })

	// mod_oauth2 treats all failures as an invalid token.
	impostor := f.in(t).shop
	impostor.certificate = newCertificate(t)
	for what, authenticator := range map[string]string{
		"an authenticator that is not synced":               f.unsyncedAuthenticator().Address("authenticator"),
		"an authenticator with a certificate of another CA": impostor.syncedAuthenticator().Address("authenticator"),
		"no authenticator":                                  binaries.FreeAddress(t),
	} {
		f := startFrontApache(s, authenticator)
		f.expectDenied("a valid key, with "+what, http.StatusUnauthorized, func() response { return f.send("GET /", f.bearer("both")) })
	}
}

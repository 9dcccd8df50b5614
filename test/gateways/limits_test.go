// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const limitsPage = "../tasks/limits-and-logs.md"

// limiter is a gateway that limits requests by key, or logs the key, as the page on limits says.
type limiter struct {
	proxy
	// edit changes the configuration of the gateway's page. The log is written to this file.
	edit func(t testing.TB, configuration, log string) string
	// limits is true if the tests run a limit.
	limits bool
}

var limiters = []limiter{
	{nginx, limitNginx, true},
	{caddy, logCaddy, false},
	{haproxy, limitHAProxy, true},
}

// snippet returns a code block of the page on limits, without the comment that names it.
func snippet(t testing.TB, name string) string {
	t.Helper()
	_, block, _ := strings.Cut(docsnippets.CodeBlock(t, limitsPage, name), "\n")
	return block
}

// The rates are lower than on the page, so that a slow test reaches them too.
func limitNginx(t testing.TB, configuration, log string) string {
	t.Helper()
	limits := binaries.FreeAddress(t)
	edited := snippet(t, "/etc/nginx/conf.d/shop-limits.conf") + docsnippets.Replace(t, configuration, map[string]string{
		"        proxy_pass http://frontend.shop.svc:8080;\n": snippet(t, "/etc/nginx/conf.d/shop.conf, in location /"),
	}) // in the order of the names
	return docsnippets.Replace(t, edited, map[string]string{
		"127.0.0.1:8002": limits, "/var/log/nginx/shop.log": log, "rate=10r/s": "rate=1r/m",
	})
}

func limitHAProxy(t testing.TB, configuration, _ string) string {
	t.Helper()
	const before = "    # The service does not receive the key."
	edited := docsnippets.Replace(t, configuration, map[string]string{
		"global\n": "global\n" + snippet(t, "/etc/haproxy/haproxy.cfg, in global"),
		before:     snippet(t, "/etc/haproxy/haproxy.cfg, in frontend shop") + before,
	})
	return docsnippets.Replace(t, edited, map[string]string{"http_req_rate(1s)": "http_req_rate(1m)"})
}

func logCaddy(t testing.TB, configuration, log string) string {
	t.Helper()
	edited := docsnippets.Replace(t, configuration, map[string]string{
		"\troute {\n": snippet(t, "/etc/caddy/Caddyfile, before route") + "\troute {\n" + snippet(t, "/etc/caddy/Caddyfile, first in route"),
	})
	return docsnippets.Replace(t, edited, map[string]string{"/var/log/caddy/shop.log": log})
}

func TestLimitsAndLogs(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t))
	authenticator := s.syncedAuthenticator().Address("authenticator")
	for _, gateway := range limiters {
		t.Run(gateway.name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "access.log")
			f := &front{shop: s.in(t), proxy: gateway.proxy, service: startService(t)}
			f.address = gateway.start(t, proxies.Settings{
				Namespace: s.namespace, Authenticator: authenticator, CAFile: s.caFile, Service: f.service.address, Log: log,
				Edit: func(configuration string) string { return gateway.edit(t, configuration, log) },
			}).Address
			theLogNamesTheKeyAndHasNoToken(f, log)
			if gateway.limits {
				oneKeyDoesNotLimitAnother(f)
			}
		})
	}
}

func theLogNamesTheKeyAndHasNoToken(f *front, log string) {
	f.Helper()
	f.assertIdentity(f.forwarded(f.send("GET /by-header", f.apiKey("reader"))), f.keys["reader"], readersApp, "read")
	f.forwarded(f.send("GET /by-bearer", f.bearer("reader"), "X-Auth-App: forged"))
	for path, headers := range map[string][]string{
		"/denied":     {f.apiKey("writer"), "X-Auth-App: forged", "X-Auth-Key-Id: forged", "Connection: X-Auth-App"},
		"/unknown":    {f.apiKey("unknown")},
		"/underscore": {"X_API_Key: " + f.keys["reader"].token, "X_Auth_App: forged"},
		"/no-key":     {"X-Auth-App: forged", "X-Auth-Key-Id: forged"},
	} {
		f.expectDenied("GET "+path, http.StatusUnauthorized, func() response { return f.send("GET "+path, headers...) })
	}

	var content string
	framework.Eventually(f, "all requests are logged", func() bool {
		read, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			f.Fatal(err)
		}
		content = string(read)
		return strings.Count(content, "/no-key") > 0 && strings.Count(content, "\n") >= 6
	})
	for line := range strings.Lines(content) {
		granted := strings.Contains(line, "/by-header") || strings.Contains(line, "/by-bearer")
		if named := strings.Contains(line, readersApp) && strings.Contains(line, f.keys["reader"].id); named != granted {
			f.Errorf("a log line names the key: %t, want %t: %s", named, granted, line)
		}
	}
	for name, key := range f.keys {
		if strings.Contains(content, key.token) {
			f.Errorf("the log contains the token of %s:\n%s", name, content)
		}
	}
	if strings.Contains(content, "forged") {
		f.Errorf("the log contains headers of a client:\n%s", content)
	}
}

func oneKeyDoesNotLimitAnother(f *front) {
	f.Helper()
	get := func(key string) int { return f.send("GET /", f.apiKey(key)).status }
	framework.Eventually(f, "the key reader is limited", func() bool { return get("reader") == http.StatusTooManyRequests })
	before := f.service.requests.Load()
	if got := get("reader"); got != http.StatusTooManyRequests || f.service.requests.Load() != before {
		f.Errorf("the response to the limited key is %d", got)
	}
	if got := get("both"); got != http.StatusOK {
		f.Errorf("the response to another key is %d", got)
	}
}

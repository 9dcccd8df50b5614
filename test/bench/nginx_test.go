// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// nginx measures requests through nginx to a service, which is nginx too. It uses the configuration of its page, with and without
// authentication.
func nginx(t *testing.T) []report.Row {
	t.Helper()
	certificateDir := t.TempDir()
	s := newServer(t, certificateDir)
	checking := startNginx(t, s, certificateDir, docsnippets.CodeBlock(t, "nginx.md", "/etc/nginx/conf.d/shop.conf"))
	open := startNginx(t, s, certificateDir, strings.Replace(docsnippets.CodeBlock(t, "nginx.md", "/etc/nginx/conf.d/shop.conf"), "auth_request /", "# auth_request /", 1))
	request := func(address string) func() load {
		return func() load { return s.check("http://"+address, "/orders", s.knownOfFirstNamespace) }
	}
	samples := inTurns(checkTurns, request(open), request(checking))
	withoutAuthentication := comparison{"without authentication", samples[0]}
	const figure = "requests through nginx with `auth_request`"
	return []report.Row{withoutAuthentication.throughput(figure, samples[1], 0), withoutAuthentication.p99(figure, samples[1], 0)}
}

// startNginx starts nginx in front of a service that only returns 200, and returns its address.
func startNginx(t *testing.T, s *server, certificateDir, configuration string) string {
	t.Helper()
	address, service, dir := binaries.FreeAddress(t), binaries.FreeAddress(t), t.TempDir()
	configuration = docsnippets.Replace(t, configuration, map[string]string{
		"listen 8000;": "listen " + address + ";",
		"apikey-authenticator.apikey-system.svc:443": s.address,
		"/auth/nginx/shop":                           "/auth/nginx/namespace-0",
		"/etc/apikey-operator/ca.crt":                filepath.Join(certificateDir, "cert.pem"),
		"frontend.shop.svc:8080":                     service,
	})
	var main strings.Builder
	fmt.Fprintf(&main, "daemon off;\npid %s/pid;\nworker_processes 1;\nevents {}\nhttp {\n  access_log off;\n", dir)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&main, "  %s_temp_path %s/%[1]s;\n", kind, dir)
	}
	fmt.Fprintf(&main, "%s\nserver {\n  listen %s;\n  location / { return 200; }\n}\n}\n", configuration, service)
	file := filepath.Join(dir, "nginx.conf")
	framework.Must(t, os.WriteFile(file, []byte(main.String()), 0o600))
	binaries.Start(t, process.Command{
		Path: binaries.Path(t, "debian", "usr", "sbin", "nginx"), Args: []string{"-c", file, "-e", "stderr"}, Env: []string{binaries.DebianLibraryPath(t)},
		Log: filepath.Join(dir, "log"), Ready: process.HTTPReady("http://" + service + "/"),
	})
	return address
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// Package proxies runs nginx, Caddy and HAProxy with the configurations of docs/gateways.
package proxies

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

// AuthenticatorName is the DNS name of the authenticator's Service, which its certificate must have.
const AuthenticatorName = "apikey-authenticator.apikey-system.svc"

// Settings are the values that a test replaces in the configuration of a page.
type Settings struct {
	// Namespace of the keys.
	Namespace string
	// Authenticator and Service are addresses, as host:port.
	Authenticator, Service string
	// CAFile has the certificate of the authority that signed the authenticator's certificate.
	CAFile string
	// Edit changes the configuration before the values are replaced, as another page says. It may be nil.
	Edit func(configuration string) string
	// Log is the file of the output. It may be empty.
	Log string
}

// configuration returns the code block of a page, after the edit.
func (s Settings) configuration(t testing.TB, page, name string) string {
	t.Helper()
	block := docsnippets.CodeBlock(t, page, name)
	if s.Edit == nil {
		return block
	}
	return s.Edit(block)
}

// replace replaces the values of a configuration, and those of the map. The endpoint stands before the namespace.
func (s Settings) replace(t testing.TB, configuration, endpoint string, more map[string]string) string {
	t.Helper()
	more[AuthenticatorName+":443"] = s.Authenticator
	more[endpoint+"shop"] = endpoint + s.Namespace
	more["/etc/apikey-operator/ca.crt"] = s.CAFile
	more["frontend.shop.svc:8080"] = s.Service
	return docsnippets.Replace(t, configuration, more)
}

// Proxy is a running gateway.
type Proxy struct {
	*process.Process
	// Address is host:port.
	Address string
}

// StartNginx starts nginx, with one worker, with the configuration of its page.
func StartNginx(t testing.TB, settings Settings) Proxy {
	t.Helper()
	address := binaries.FreeAddress(t)
	configuration := settings.configuration(t, "nginx.md", "/etc/nginx/conf.d/shop.conf")
	return RunNginx(t, address, settings.replace(t, configuration, "/auth/nginx/", map[string]string{
		"listen 8000;": "listen " + address + ";",
	}))
}

// RunNginx starts nginx, with one worker, with this http block, and returns when it listens at the address.
func RunNginx(t testing.TB, address, configuration string) Proxy {
	t.Helper()
	dir := t.TempDir()
	var main strings.Builder
	fmt.Fprintf(&main, "daemon off;\nmaster_process off;\npid %s/pid;\nevents {}\nhttp {\n  access_log off;\n", dir)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&main, "  %s_temp_path %s/%[1]s;\n", kind, dir)
	}
	main.WriteString(configuration + "}\n")
	file := filepath.Join(dir, "nginx.conf")
	framework.Must(t, os.WriteFile(file, []byte(main.String()), 0o600))
	return Start(t, address, process.Command{
		Path: binaries.Path(t, "debian", "usr", "sbin", "nginx"),
		Args: []string{"-c", file, "-e", "stderr"},
		Env:  []string{binaries.DebianLibraryPath(t)},
	})
}

// StartCaddy starts Caddy with the configuration of its page.
func StartCaddy(t testing.TB, settings Settings) Proxy {
	t.Helper()
	address, dir := binaries.FreeAddress(t), t.TempDir()
	_, port, _ := net.SplitHostPort(address)
	configuration := settings.replace(t, settings.configuration(t, "caddy.md", "/etc/caddy/Caddyfile"), "/auth/forward/", map[string]string{
		":8000 {": "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n:" + port + " {",
	})
	file := filepath.Join(dir, "Caddyfile")
	framework.Must(t, os.WriteFile(file, []byte(configuration), 0o600))
	return Start(t, address, process.Command{
		Path: binaries.Path(t, "images", "caddy"),
		Args: []string{"run", "--config", file, "--adapter", "caddyfile"},
		Env:  []string{"XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir},
	})
}

// StartHAProxy starts HAProxy with the configuration and the script of its page.
func StartHAProxy(t testing.TB, settings Settings) Proxy {
	t.Helper()
	address, checks, dir := binaries.FreeAddress(t), binaries.FreeAddress(t), t.TempDir()
	script, file := filepath.Join(dir, "apikey.lua"), filepath.Join(dir, "haproxy.cfg")
	framework.Must(t, os.WriteFile(script, []byte(docsnippets.Replace(t, docsnippets.CodeBlock(t, "haproxy.md", "/etc/haproxy/apikey.lua"),
		map[string]string{"127.0.0.1:8001": checks})), 0o600))
	configuration := settings.configuration(t, "haproxy.md", "/etc/haproxy/haproxy.cfg")
	configuration = settings.replace(t, configuration, "lua.check-apikey ", map[string]string{
		"/etc/haproxy/apikey.lua": script,
		"bind :8000":              "bind " + address,
		"127.0.0.1:8001":          checks,
	})
	framework.Must(t, os.WriteFile(file, []byte(configuration), 0o600))
	return Start(t, address, process.Command{
		Path: binaries.Path(t, "debian", "usr", "sbin", "haproxy"),
		Args: []string{"-db", "-f", file},
		Env:  []string{binaries.DebianLibraryPath(t)},
		Log:  settings.Log,
	})
}

// Start starts a gateway, and returns when it listens at the address. It is stopped when the test ends.
func Start(t testing.TB, address string, command process.Command) Proxy {
	t.Helper()
	command.Log = cmp.Or(command.Log, filepath.Join(t.TempDir(), "log"))
	command.Ready = func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			connection.Close()
		}
		return err
	}
	return Proxy{Process: binaries.Start(t, command), Address: address}
}

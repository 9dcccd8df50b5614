// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// beTheProgram in the environment makes the test binary run the program, for tests of a separate process.
const beTheProgram = "TEST_IS_APIKEY_OPERATOR=1"

func TestMain(m *testing.M) {
	if name, value, _ := strings.Cut(beTheProgram, "="); os.Getenv(name) == value {
		main()
	}
	testenv.Main(m)
}

func TestRun_InvalidCommandLines(t *testing.T) {
	const (
		noCertificate = "--tls-cert-file and --tls-private-key-file are required, unless --plaintext disables TLS, which is safe only on " +
			"loopback or behind a sidecar that encrypts"
		tooShort = " is too short, because the Kubernetes API sends a bookmark only about once a minute: use at least 2m0s, or 0 for no limit"
	)
	plaintext := []string{"authenticator", "--plaintext"}
	cases := []struct {
		args []string
		want string
	}{
		{[]string{"serve"}, `unknown command "serve" for "apikey-operator"`},
		{[]string{"authenticator", "now"}, `unknown command "now" for "apikey-operator authenticator"`},
		{[]string{"authenticator", "--port=1"}, `unknown flag: --port`},
		{[]string{"authenticator", "--max-staleness=soon"}, `invalid argument "soon" for "--max-staleness" flag: time: invalid duration "soon"`},
		{[]string{"version", "--log-level=all"}, `--log-level="all" is not supported: use debug, info, warn or error`},
		{[]string{"version", "--log-format=xml"}, `--log-format="xml" is not supported: use json or text`},

		{[]string{"authenticator"}, noCertificate},
		{[]string{"authenticator", "--tls-cert-file=tls.crt"}, noCertificate},
		{append(plaintext, "--tls-cert-file=tls.crt"),
			"--plaintext and --tls-cert-file with --tls-private-key-file are mutually exclusive"},
		{append(plaintext, "--listen-address=8443"), `--listen-address="8443" is not an address: use host:port or :port`},
		{append(plaintext, "--listen-address=:https"), `--listen-address=":https" is not an address: use host:port or :port`},
		{append(plaintext, "--listen-address=:65536"), `--listen-address=":65536" is not an address: use host:port or :port`},
		{append(plaintext, "--grpc-listen-address=9191"), `--grpc-listen-address="9191" is not an address: use host:port or :port, or 0 to disable the server`},
		{append(plaintext, "--default-namespace=Shop"), `--default-namespace="Shop" is not a namespace: a lowercase RFC 1123 label must consist of ` +
			"lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', " +
			"regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"},
		{append(plaintext, "--metrics-bind-address="), `--metrics-bind-address="" is not an address: use host:port or :port, or 0 to disable the server`},
		{append(plaintext, "--health-probe-bind-address=off"), `--health-probe-bind-address="off" is not an address: use host:port or :port, or 0 to disable the server`},
		{append(plaintext, "--max-staleness=119s"), "--max-staleness=1m59s" + tooShort},
		{append(plaintext, "--max-staleness=-1h"), "--max-staleness=-1h0m0s" + tooShort},
		{append(plaintext, "--shutdown-delay=-1s"), "--shutdown-delay=-1s is negative: use 0 or more"},
		{append(plaintext, "--max-connections=-1"),
			"--max-connections=-1 is negative: use a positive number, or 0 to derive it from the memory limit"},
		{append(plaintext, "--max-header-bytes=8191"), "--max-header-bytes=8191 is out of range: use 8192 to 1048576"},
		{append(plaintext, "--max-header-bytes=1048577"), "--max-header-bytes=1048577 is out of range: use 8192 to 1048576"},
		{append(plaintext, "--namespaces=shop,Bank"), `--namespaces="Bank" is not a namespace: a lowercase RFC 1123 label must consist of lower ` +
			"case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', " +
			"regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"},
		{append(plaintext, "--namespaces=shop,"), `--namespaces="shop," has an empty namespace: separate namespaces by one comma`},
		{append(plaintext, "--namespaces=shop,bank,shop"), `--namespaces="shop,bank,shop" has the namespace shop twice: remove one`},
		{append(plaintext, "--namespaces=shop,bank", "--default-namespace=other"),
			"--default-namespace=other is not one of --namespaces=shop,bank: add it there"},
		{append(plaintext, "--insufficient-access-status=404"), "--insufficient-access-status=404 is not supported: use 401 or 403"},

		{[]string{"console", "--namespace=shop"}, noCertificate},
		{[]string{"console", "--plaintext"}, "--namespace is required outside a cluster"},
		{[]string{"console", "--plaintext", "--namespace=Shop"}, `--namespace="Shop" is not a namespace: a lowercase RFC 1123 label must consist of ` +
			"lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', " +
			"regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"},
		{[]string{"console", "--plaintext", "--namespace=shop", "--listen-address=shop"},
			`--listen-address="shop" is not an address: use host:port or :port`},
		{[]string{"console", "--plaintext", "--namespace=shop", "--managers=all"}, `--managers="all" is not supported: use write-access or labelled`},
		{[]string{"console", "--plaintext", "--namespace=shop", "--service-url=api.example.com"},
			`--service-url="api.example.com" is not the URL of a service: use one such as https://api.example.com`},
		{[]string{"console", "--plaintext", "--namespace=shop", "--service-url=ftp://api.example.com"},
			`--service-url="ftp://api.example.com" is not the URL of a service: use one such as https://api.example.com`},
		{[]string{"console", "--plaintext", "--namespace=shop", "--shutdown-delay=-1s"}, "--shutdown-delay=-1s is negative: use 0 or more"},

		{[]string{"controller"}, "the admission webhook requires a certificate: set --mint-certificates, or --webhook-cert-dir " +
			"for another certificate, or disable the webhook with --webhook=false"},
		{[]string{"controller", "--mint-certificates", "--webhook-cert-dir=certs"},
			"--mint-certificates and --webhook-cert-dir are mutually exclusive"},
		{[]string{"controller", "--mint-certificates", "--leader-elect=false"}, "--system-namespace is required outside a cluster"},
		{[]string{"controller", "--webhook=false"}, "--system-namespace is required outside a cluster"},
		{[]string{"controller", "--mint-certificates", "--system-namespace=shop", "--ca-lifetime=119m"},
			"--ca-lifetime=1h59m0s is too short for pods to load a renewed certificate in time: use at least 2h0m0s"},
		{[]string{"controller", "--webhook=false", "--system-namespace=shop", "--namespaces=shop,shop"},
			`--namespaces="shop,shop" has the namespace shop twice: remove one`},
		{[]string{"controller", "--webhook=false", "--system-namespace=shop", "--console-namespaces=shop"},
			"--console-namespaces requires --mint-certificates"},
		{[]string{"controller", "--mint-certificates", "--system-namespace=shop", "--namespaces=shop", "--console-namespaces=shop,bank"},
			"--console-namespaces has bank, which is not one of --namespaces=shop: add it there"},
		{[]string{"controller", "--webhook-cert-dir=certs", "--webhook-listen-address=:0"},
			`--webhook-listen-address=":0" is not an address: use host:port or :port, with a port other than 0`},
		{[]string{"controller", "--webhook=false", "--metrics-bind-address=8080"},
			`--metrics-bind-address="8080" is not an address: use host:port or :port, or 0 to disable the server`},
	}
	for _, c := range cases {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), c.args, &stdout, &stderr); code != 2 {
				t.Errorf("the exit code is %d, want 2", code)
			}
			message, help, _ := strings.Cut(stderr.String(), "\n")
			if message != "Error: "+c.want {
				t.Errorf("stderr starts with %q, want %q", message, "Error: "+c.want)
			}
			if !regexp.MustCompile(`^Run 'apikey-operator( \w+)? --help' for usage\.\n$`).MatchString(help) {
				t.Errorf("stderr continues with %q", help)
			}
			if stdout.Len() != 0 {
				t.Errorf("stdout is %q", stdout.String())
			}
		})
	}
}

func TestRun_PrintsTheVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"version"}, &stdout, &stderr); code != 0 || stderr.Len() != 0 {
		t.Errorf("the exit code is %d: %s", code, stderr.String())
	}
	if !regexp.MustCompile(`^apikey-operator \S+ go1\S+ \w+/\w+\n$`).MatchString(stdout.String()) {
		t.Errorf("stdout is %q", stdout.String())
	}
}

func TestRun_ListsTheCommands(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), nil, &stdout, &stderr); code != 0 || stderr.Len() != 0 {
		t.Errorf("the exit code is %d: %s", code, stderr.String())
	}
	for _, name := range []string{"authenticator", "console", "controller", "version"} {
		if !strings.Contains(stdout.String(), "\n  "+name+" ") {
			t.Errorf("%s is missing in\n%s", name, stdout.String())
		}
	}
}

func TestRun_LogsFailuresAndExitsWith1(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, &rest.Config{Host: "http://127.0.0.1:1"}, "default"); err != nil {
		t.Fatal(err)
	}
	inUse, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no kubeconfig": {
			args: []string{"authenticator", "--plaintext", "--kubeconfig=" + missing},
			want: "find the Kubernetes API by --kubeconfig, KUBECONFIG or the ServiceAccount of the pod: stat " + missing + ": no such file or directory",
		},
		"no certificate": {
			args: []string{"authenticator", "--kubeconfig=" + kubeconfig, "--tls-cert-file=" + missing, "--tls-private-key-file=" + missing},
			want: "load the serving certificate: open " + missing + ": no such file or directory",
		},
		"an address in use": {
			args: []string{"authenticator", "--kubeconfig=" + kubeconfig, "--plaintext", "--listen-address=" + inUse.Addr().String()},
			want: "the authenticator server cannot listen on " + inUse.Addr().String() + ": listen tcp " + inUse.Addr().String() +
				": bind: address already in use",
		},
		"a directory for a key file": {
			args: []string{"console", "--kubeconfig=" + kubeconfig, "--plaintext", "--namespace=shop", "--api-key-file=" + dir},
			want: "the key file " + dir + " is a directory: remove it, or name a file with --api-key-file",
		},
		"a gRPC address in use": {
			args: []string{"authenticator", "--kubeconfig=" + kubeconfig, "--plaintext", "--listen-address=127.0.0.1:0",
				"--grpc-listen-address=" + inUse.Addr().String()},
			want: "the grpc server cannot listen on " + inUse.Addr().String() + ": listen tcp " + inUse.Addr().String() +
				": bind: address already in use",
		},
		"no webhook certificate": {
			args: []string{"controller", "--kubeconfig=" + kubeconfig, "--leader-elect=false", "--webhook-cert-dir=" + missing},
			want: "load the serving certificate: open " + filepath.Join(missing, "tls.crt") + ": no such file or directory",
		},
		"no kubeconfig for the controller": {
			args: []string{"controller", "--webhook=false", "--leader-elect=false", "--kubeconfig=" + missing},
			want: "find the Kubernetes API by --kubeconfig, KUBECONFIG or the ServiceAccount of the pod: stat " + missing + ": no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProgram(t, c.args...)
			p.assertEnds("exit status 1")
			lines := p.lines()
			if last := lines[len(lines)-1]; last.Level != "ERROR" || last.Msg != "Exiting" || last.Err != c.want {
				t.Errorf("the last line of the log is %+v, want the error %q", last, c.want)
			}
		})
	}
}

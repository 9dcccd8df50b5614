// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
)

// Each kubeconfig must work as it does in kubectl.
func TestConnection_WorksWithTheKubeconfigsOfKubectl(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner")
	token := terminal.serviceAccountToken("reader")
	proxy := newConnectProxy(t)
	for name, change := range map[string]func(*clientcmdapi.Config) (args []string){
		"auth provider oidc": func(config *clientcmdapi.Config) []string {
			config.AuthInfos["user"] = &clientcmdapi.AuthInfo{AuthProvider: &clientcmdapi.AuthProviderConfig{Name: "oidc", Config: map[string]string{
				"client-id": "kubectl", "idp-issuer-url": "https://issuer.invalid", "id-token": token,
			}}}
			return nil
		},
		"exec plugin": func(config *clientcmdapi.Config) []string {
			script := filepath.Join(t.TempDir(), "credentials")
			credential := `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"` + token + `"}}`
			framework.Must(t, os.WriteFile(script, []byte("#!/bin/sh\necho '"+credential+"'\n"), 0o700))
			config.AuthInfos["user"] = &clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
				APIVersion: "client.authentication.k8s.io/v1", Command: script, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
			}}
			return nil
		},
		"token file": func(config *clientcmdapi.Config) []string {
			file := filepath.Join(t.TempDir(), "token")
			framework.Must(t, os.WriteFile(file, []byte(token), 0o600))
			config.AuthInfos["user"] = &clientcmdapi.AuthInfo{TokenFile: file}
			return nil
		},
		"--token": func(config *clientcmdapi.Config) []string {
			config.AuthInfos["user"] = &clientcmdapi.AuthInfo{}
			return []string{"--token=" + token}
		},
		"impersonation": func(config *clientcmdapi.Config) []string {
			config.AuthInfos["user"].Impersonate = "system:serviceaccount:" + terminal.namespace + ":reader"
			return nil
		},
		"--as": func(*clientcmdapi.Config) []string {
			return []string{"--as=system:serviceaccount:" + terminal.namespace + ":reader"}
		},
		"proxy-url": func(config *clientcmdapi.Config) []string {
			config.Clusters["cluster"].ProxyURL = proxy
			return nil
		},
		"tls-server-name": func(config *clientcmdapi.Config) []string {
			config.Clusters["cluster"].TLSServerName = "kubernetes.default.svc"
			return nil
		},
		"other context": func(config *clientcmdapi.Config) []string {
			config.CurrentContext = ""
			return []string{"--context=context"}
		},
	} {
		config := terminal.kubeconfigOf(terminal.env.Config)
		args := append([]string{"list", "-o", "name"}, change(config)...)
		terminal.kubeconfig = writeKubeconfig(t, config)
		if got := terminal.run(args...); got != (result{stdout: "apikey.keys.squirrel.dev/partner\n"}) {
			t.Errorf("%s: %+v", name, got)
		}
		kubectl := controlplane.Kubectl{Program: terminal.env.Binary("kubectl"), Kubeconfig: terminal.kubeconfig, CacheDir: t.TempDir()}
		got, err := kubectl.Run(t.Context(), "", append([]string{"get", "apikeys", "-o", "name"}, args[3:]...)...)
		if err != nil || got != "apikey.keys.squirrel.dev/partner\n" {
			t.Errorf("%s: kubectl prints %q, and fails with %v", name, got, err)
		}
	}
}

func TestConnection_MergesTheFilesOfKUBECONFIG(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner")
	whole := terminal.kubeconfigOf(terminal.env.Config)
	cluster, user := clientcmdapi.NewConfig(), clientcmdapi.NewConfig()
	cluster.Clusters = whole.Clusters
	user.AuthInfos, user.Contexts, user.CurrentContext = whole.AuthInfos, whole.Contexts, whole.CurrentContext
	terminal.kubeconfig = strings.Join([]string{
		writeKubeconfig(t, cluster), filepath.Join(t.TempDir(), "no-such-file"), writeKubeconfig(t, user),
	}, string(filepath.ListSeparator))
	if got := terminal.run("list", "-o", "name"); got != (result{stdout: "apikey.keys.squirrel.dev/partner\n"}) {
		t.Errorf("list: %+v", got)
	}
}

// Flux takes over the fields of managers whose name begins with "kubectl", and would then set spec.active again.
func TestConnection_WritesAsAFieldManagerThatFluxLeavesAlone(t *testing.T) {
	terminal := newTerminal(t)
	terminal.apply("partner")
	terminal.run("deactivate", "partner")
	managers := map[string]bool{}
	for _, entry := range terminal.key("App partner").ManagedFields {
		managers[entry.Manager] = true
	}
	if !managers["apikey-cli"] {
		t.Errorf("the field managers are %v", managers)
	}
}

func TestConnection_ReportsWarningsAsErrors(t *testing.T) {
	terminal := newTerminal(t)
	terminal.throughProxy(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Warning", `299 - "beware"`)
			next.ServeHTTP(w, r)
		})
	})
	terminal.types("count")
	terminal.types("count", "--warnings-as-errors")
	terminal.assertGolden()
}

func TestConnection_LogsRequestsOnDemand(t *testing.T) {
	terminal := newTerminal(t)
	got := terminal.run("count", "-v=6")
	if want := `url="` + terminal.env.Config.Host + `/apis/keys.squirrel.dev/v1alpha1/namespaces/`; got.stdout != "0\n" || !strings.Contains(got.stderr, want) {
		t.Errorf("count: %+v", got)
	}
}

// serviceAccountToken returns a token of a new ServiceAccount that may read the keys of the namespace.
func (t *terminal) serviceAccountToken(name string) string {
	t.Helper()
	framework.Must(t, t.env.Client.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, Name: name}}))
	config := t.env.ServiceAccount(t, t.namespace, name)
	t.logIn(config)
	t.allow("system:serviceaccount:"+t.namespace+":"+name, "get", "list")
	return config.BearerToken
}

// kubeconfigOf returns a kubeconfig that tests may change.
func (t *terminal) kubeconfigOf(config *rest.Config) *clientcmdapi.Config {
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["cluster"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos["user"] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	kubeconfig.Contexts["context"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: "user", Namespace: t.namespace}
	kubeconfig.CurrentContext = "context"
	return kubeconfig
}

func writeKubeconfig(t *testing.T, config *clientcmdapi.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	framework.Must(t, clientcmd.WriteToFile(*config, path))
	return path
}

// throughProxy makes the following commands reach the API server through a handler.
func (t *terminal) throughProxy(wrap func(next http.Handler) http.Handler) {
	t.Helper()
	target, err := url.Parse(t.env.Config.Host)
	framework.Must(t, err)
	transport, err := rest.TransportFor(t.env.Config)
	framework.Must(t, err)
	reverse := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, FlushInterval: -1}
	proxy := httptest.NewServer(wrap(reverse))
	t.Cleanup(proxy.Close)
	t.logIn(&rest.Config{Host: proxy.URL})
}

// newConnectProxy returns the URL of an HTTP proxy for TLS connections.
func newConnectProxy(t *testing.T) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server, err := new(net.Dialer).DialContext(r.Context(), "tcp", r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "no connection", http.StatusBadGateway)
			return
		}
		defer server.Close()
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() { _, _ = io.Copy(server, client) }()
		_, _ = io.Copy(client, server)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

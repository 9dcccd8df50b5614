// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
)

// ingressNginx is ingress-nginx: nginx with the configuration that it generates.
var ingressNginx = proxy{
	name: "ingress-nginx", endpoint: "/auth/nginx/", start: startIngressNginx,
	unavailable: http.StatusInternalServerError, unreachable: http.StatusInternalServerError, sendsAllHeaders: true,
}

// ingressNginxConfiguration is the configuration that ingress-nginx generates from an Ingress with one path. It follows
// rootfs/etc/nginx/template/nginx.tmpl of its version 1.15.1, without Lua, which chooses the endpoint of a service there.
var ingressNginxConfiguration = template.Must(template.New("").Funcs(template.FuncMap{
	"variable": func(header string) string { return strings.ToLower(strings.ReplaceAll(header, "-", "_")) },
}).Parse(`
upstream upstream_balancer {
    server {{ .Service }};
    keepalive 320;
}
upstream {{ .AuthenticatorHost }} {
    server {{ .Authenticator }};
}
map $http_upgrade $connection_upgrade {
    default upgrade;
    '' '';
}
underscores_in_headers off;
ignore_invalid_headers on;
proxy_ssl_session_reuse on;
server {
    server_name {{ .Host }};
    listen {{ .Listen }};

    proxy_ssl_trusted_certificate {{ .CAFile }};
    proxy_ssl_ciphers DEFAULT;
    proxy_ssl_protocols TLSv1.2;
    proxy_ssl_verify {{ .Annotations.Get "proxy-ssl-verify" }};
    proxy_ssl_verify_depth 1;
    proxy_ssl_name {{ .Annotations.Get "proxy-ssl-name" }};
    proxy_ssl_server_name {{ .Annotations.Get "proxy-ssl-server-name" }};

    location = /_external-auth-Lw-Prefix {
        internal;
        access_log off;
        proxy_intercept_errors off;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Forwarded-Proto "";
        proxy_set_header X-Request-ID $request_id;
        proxy_set_header Host {{ .AuthenticatorHost }};
        proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
        proxy_set_header X-Original-Method $request_method;
        proxy_set_header X-Sent-From "nginx-ingress-controller";
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Auth-Request-Redirect $request_uri;
        proxy_buffering off;
        proxy_buffer_size 4k;
        proxy_buffers 4 4k;
        proxy_request_buffering on;
        proxy_ssl_server_name on;
        proxy_pass_request_headers on;
        client_max_body_size 1m;
        proxy_http_version 1.1;
        set $target "{{ .AuthURL }}";
        proxy_pass $target;
    }

    location / {
        auth_request /_external-auth-Lw-Prefix;
        auth_request_set $auth_cookie $upstream_http_set_cookie;
        add_header Set-Cookie $auth_cookie;
        {{- range $i, $header := .ResponseHeaders }}
        auth_request_set $authHeader{{ $i }} $upstream_http_{{ variable $header }};
        proxy_set_header '{{ $header }}' $authHeader{{ $i }};
        {{- end }}
        client_max_body_size 1m;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection {{ .Annotations.Get "connection-proxy-header" }};
        proxy_set_header X-Request-ID $request_id;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
        proxy_set_header Proxy "";
        {{- range $name, $value := .ProxySetHeaders }}
        proxy_set_header {{ $name }} "{{ $value }}";
        {{- end }}
        proxy_http_version 1.1;
        proxy_pass http://upstream_balancer;
    }
}
`))

// annotations are those of an Ingress for ingress-nginx.
type annotations map[string]string

// Get returns the value of an annotation, without its prefix.
func (a annotations) Get(name string) string { return a["nginx.ingress.kubernetes.io/"+name] }

// startIngressNginx starts nginx with the configuration that ingress-nginx generates from its page.
func startIngressNginx(t testing.TB, settings proxies.Settings) proxies.Proxy {
	t.Helper()
	address := binaries.FreeAddress(t)
	var ingress networkingv1.Ingress
	framework.Must(t, yaml.UnmarshalStrict([]byte(docsnippets.CodeBlock(t, "ingress-nginx.md", "ingress.yaml")), &ingress))
	var headers corev1.ConfigMap
	framework.Must(t, yaml.UnmarshalStrict([]byte(docsnippets.CodeBlock(t, "ingress-nginx.md", "headers.yaml")), &headers))
	annotations := annotations(ingress.Annotations)
	const host = proxies.AuthenticatorName + ".cluster.local"

	var configuration bytes.Buffer
	framework.Must(t, ingressNginxConfiguration.Execute(&configuration, map[string]any{
		"Listen": address, "Host": ingress.Spec.Rules[0].Host, "Service": settings.Service, "Authenticator": settings.Authenticator,
		"AuthenticatorHost": host, "CAFile": settings.CAFile, "Annotations": annotations, "ProxySetHeaders": headers.Data,
		"AuthURL": docsnippets.Replace(t, annotations.Get("auth-url"), map[string]string{
			"https://" + host + "/auth/nginx/shop": "https://" + host + "/auth/nginx/" + settings.Namespace,
		}),
		"ResponseHeaders": strings.Split(annotations.Get("auth-response-headers"), ","),
	}))
	return proxies.RunNginx(t, address, configuration.String())
}

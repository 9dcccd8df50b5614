// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"text/template"

	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// fabric is NGINX Gateway Fabric: nginx with the configuration that it generates.
var fabric = proxy{
	name: "nginx-gateway-fabric", endpoint: "/auth/nginx-gateway-fabric/", start: startFabric,
	unavailable: http.StatusInternalServerError, unreachable: http.StatusInternalServerError,
}

// All checks are GETs, so the endpoints of other gateways must reject them, with any method that a client names in a header.
func TestInvariant7_OtherEndpointsRejectChecksOfNGINXGatewayFabric(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t))
	authenticator := s.syncedAuthenticator().Address("authenticator")
	for _, path := range []string{"/auth/envoy/{}", "/auth/envoy/{}/", "/auth/envoy/{}/orders", "/auth/nginx/{}", "/auth/forward/{}"} {
		f := &front{shop: s, service: startService(t)}
		settings := proxies.Settings{Namespace: s.namespace, Authenticator: authenticator, CAFile: s.caFile, Service: f.service.address}
		f.address = startFabricAt(t, settings, strings.ReplaceAll(path, "{}", s.namespace)).Address
		for _, method := range []string{"GET", "POST"} {
			f.expectDenied(method+" with checks at "+path, http.StatusInternalServerError, func() response {
				return f.send(method+" /", f.apiKey("both"), "Method: GET", "X-Forwarded-Method: GET", "X-Original-Method: GET", "Content-Length: 0")
			})
		}
	}
}

// externalAuthHTTP has the settings of an ExternalAuth filter for HTTP.
type externalAuthHTTP struct {
	Path                   string
	AllowedHeaders         []string
	AllowedResponseHeaders []string
}

// httpRoute is the part of a page's HTTPRoute that the tests read.
type httpRoute struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Hostnames []string
		Rules     []struct {
			Filters []struct {
				Type                  string
				ExternalAuth          struct{ HTTP externalAuthHTTP }
				RequestHeaderModifier struct{ Remove []string }
			}
		}
	}
}

// backendTLSPolicy is the part of its BackendTLSPolicy that the test reads.
type backendTLSPolicy struct {
	Spec struct{ Validation struct{ Hostname string } }
}

// fabricConfiguration is the configuration that NGINX Gateway Fabric generates from an HTTPRoute with one rule, which has the filters
// ExternalAuth and RequestHeaderModifier. It follows updateLocationExternalAuthFilter, extractExternalAuthInternalLocations and
// createBaseProxySetHeaders in internal/controller/nginx/config/servers.go of its source, and the templates there, of August 2026.
var fabricConfiguration = template.Must(template.New("").Funcs(template.FuncMap{
	"variable": func(header string) string { return strings.ToLower(strings.ReplaceAll(header, "-", "_")) },
}).Parse(`
upstream shop_frontend_8080 {
    random two least_conn;
    server {{ .Service }};
    keepalive 16;
}
upstream apikey-system_apikey-authenticator_443 {
    random two least_conn;
    server {{ .Authenticator }};
    keepalive 16;
}
map $http_host $gw_api_compliant_host {
    '' $host;
    default $http_host;
}
map $http_upgrade $connection_keepalive {
    default upgrade;
    '' '';
}
server {
    listen {{ .Listen }};
    server_name {{ .Hostname }};

    location / {
        auth_request {{ .InternalPath }};
        {{- range .ResponseHeaders }}
        auth_request_set $ext_auth_response_{{ variable . }} $upstream_http_{{ variable . }};
        proxy_set_header {{ . }} $ext_auth_response_{{ variable . }};
        {{- end }}
        {{- range .Removed }}
        proxy_set_header {{ . }} "";
        {{- end }}
        proxy_set_header Host "$gw_api_compliant_host";
        proxy_set_header X-Forwarded-For "$proxy_add_x_forwarded_for";
        proxy_set_header X-Real-IP "$remote_addr";
        proxy_set_header X-Forwarded-Proto "$scheme";
        proxy_set_header X-Forwarded-Host "$host";
        proxy_set_header X-Forwarded-Port "$server_port";
        {{- if not .UpgradeRemoved }}
        proxy_set_header Upgrade "$http_upgrade";
        {{- end }}
        proxy_set_header Connection "$connection_keepalive";
        proxy_pass http://shop_frontend_8080;
    }

    location {{ .InternalPath }} {
        internal;
        proxy_set_header Host "$gw_api_compliant_host";
        proxy_set_header Path "$request_uri";
        proxy_set_header Method "$request_method";
        proxy_set_header Authorization "$http_authorization";
        {{- range .RequestHeaders }}
        proxy_set_header {{ . }} "$http_{{ variable . }}";
        {{- end }}
        proxy_pass https://apikey-system_apikey-authenticator_443{{ .Path }};
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_pass_request_headers off;
        proxy_ssl_server_name on;
        proxy_ssl_verify on;
        proxy_ssl_verify_depth 4;
        proxy_ssl_name {{ .ServerName }};
        proxy_ssl_trusted_certificate {{ .CAFile }};
    }
}
`))

func startFabric(t testing.TB, settings proxies.Settings) proxies.Proxy {
	t.Helper()
	return startFabricAt(t, settings, "/auth/nginx-gateway-fabric/"+settings.Namespace)
}

// startFabricAt starts nginx with the configuration that NGINX Gateway Fabric generates from its page, and this path for checks.
func startFabricAt(t testing.TB, settings proxies.Settings, path string) proxies.Proxy {
	t.Helper()
	address := binaries.FreeAddress(t)
	documents := strings.Split(docsnippets.CodeBlock(t, "nginx-gateway-fabric.md", "apikeys.yaml"), "\n---\n")
	var route httpRoute
	framework.Must(t, yaml.Unmarshal([]byte(documents[0]), &route))
	var policy backendTLSPolicy
	framework.Must(t, yaml.Unmarshal([]byte(documents[len(documents)-1]), &policy))
	filters := route.Spec.Rules[0].Filters
	auth, removed := filters[0].ExternalAuth.HTTP, filters[1].RequestHeaderModifier.Remove

	var configuration bytes.Buffer
	framework.Must(t, fabricConfiguration.Execute(&configuration, map[string]any{
		"Listen": address, "Hostname": route.Spec.Hostnames[0], "Service": settings.Service, "Authenticator": settings.Authenticator,
		"InternalPath":   "/_ngf-internal-ext-auth-" + route.Metadata.Namespace + "_" + route.Metadata.Name + "_rule0",
		"Path":           docsnippets.Replace(t, auth.Path, map[string]string{"/auth/nginx-gateway-fabric/shop": path}),
		"RequestHeaders": auth.AllowedHeaders, "ResponseHeaders": auth.AllowedResponseHeaders, "Removed": removed,
		"UpgradeRemoved": slices.Contains(removed, "Upgrade"), "ServerName": policy.Spec.Validation.Hostname, "CAFile": settings.CAFile,
	}))
	// The nginx of NGINX Gateway Fabric uses HTTP/1.1 for upstreams by default, and this one uses HTTP/1.0.
	return proxies.RunNginx(t, address, "proxy_http_version 1.1;\n"+configuration.String())
}

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
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// fabric is NGINX Gateway Fabric: nginx, with the configuration that it generates.
var fabric = proxy{
	name: "nginx-gateway-fabric", endpoint: "/auth/nginx-gateway-fabric/", start: startFabric,
	unavailable: http.StatusInternalServerError, unreachable: http.StatusInternalServerError,
}

func TestNGINXGatewayFabric(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t), "retired-"+fabric.name)
	f := fabric.stand(s, s.syncedAuthenticator().Address("authenticator"))
	for name, test := range map[string]func(f *front){
		"the service learns who asks, and gets no key":        theServiceGetsNoKeyFromFabric,
		"the method decides which right is needed":            theMethodDecidesWhichRightIsNeeded,
		"no header overrides the method":                      noHeaderOverridesTheMethod,
		"bodies arrive whole and are no part of the question": bodiesArriveWhole,
		"no bad key passes":                                   noBadKeyPassesFabric,
		"invariant 6: a key of another namespace is refused":  aKeyOfAnotherNamespaceIsRefused,
		"invariant 7: no client speaks for the gateway":       noClientSpeaksForTheGateway,
		"no path leads to another namespace":                  noPathLeadsToAnotherNamespace,
		"a good key without the right can be answered 403":    aGoodKeyWithoutTheRightCanBe403,
		"a deactivated key is refused":                        aDeactivatedKeyIsRefused,
		"without an authenticator nobody passes":              withoutAnAuthenticatorNobodyPasses,
	} {
		t.Run(name, func(t *testing.T) { test(f.in(t)) })
	}
}

// Every request is asked about by GET, so at another gateway's endpoint no request may pass, whatever method a
// client names.
func TestInvariant7_NGINXGatewayFabricIsRefusedAtOtherEndpoints(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t))
	authenticator := s.syncedAuthenticator().Address("authenticator")
	for _, path := range []string{"/auth/envoy/{}", "/auth/envoy/{}/", "/auth/envoy/{}/orders", "/auth/nginx/{}", "/auth/forward/{}"} {
		f := &front{shop: s, service: startService(t)}
		settings := settings{namespace: s.namespace, authenticator: authenticator, caFile: s.caFile, service: f.service.address}
		f.address = startFabricAt(t, settings, strings.ReplaceAll(path, "{}", s.namespace))
		for _, method := range []string{"GET", "POST"} {
			f.refused(method+" by way of "+path, http.StatusInternalServerError, func() answer {
				return f.send(method+" /", f.apiKey("both"), "Method: GET", "X-Forwarded-Method: GET", "X-Original-Method: GET", "Content-Length: 0")
			})
		}
	}
}

// The filter cannot keep Authorization for the service when the key is in X-API-Key.
func theServiceGetsNoKeyFromFabric(f *front) {
	reader := f.keys["reader"]
	for what, headers := range map[string][]string{
		"in X-API-Key":     {f.apiKey("reader")},
		"in Authorization": {f.bearer("reader")},
		"in both":          {f.apiKey("reader"), f.bearer("reader")},
		"beside Basic":     {f.apiKey("reader"), "Authorization: Basic c2hvcDpzaG9w"},
	} {
		r := f.forwarded(f.send("GET /articles?page=2&x=%2F..", append(headers, "Accept: text/plain", "Connection: Upgrade", "Upgrade: h2c")...))
		f.assertIdentity(r, reader, readersApp, "read")
		if r.Method != http.MethodGet || r.Target != "/articles?page=2&x=%2F.." || r.Header.Get("Accept") != "text/plain" {
			f.Errorf("a key %s: the service received %s %s %v", what, r.Method, r.Target, r.Header)
		}
		for _, removed := range []string{"Authorization", "X-Api-Key", "Upgrade"} {
			if values := r.Header[removed]; values != nil {
				f.Errorf("a key %s: the service received %s: %q", what, removed, values)
			}
		}
	}
}

// Of two X-API-Key headers nginx 1.22 sends the first. The versions that NGINX Gateway Fabric has join them.
func noBadKeyPassesFabric(f *front) {
	reader := f.keys["reader"].token
	for what, headers := range map[string][]string{
		"no key":                       nil,
		"an unknown key":               {"X-API-Key: sq_unknown"},
		"two keys joined":              {"X-API-Key: " + reader + "," + reader},
		"another scheme":               {"Authorization: Basic " + reader},
		"a key in a header of no name": {"X_API_Key: " + reader},
	} {
		a := f.refused(what, http.StatusUnauthorized, func() answer { return f.send("GET /", headers...) })
		if got := a.header["Www-Authenticate"]; !slices.Equal(got, []string{challenge}) {
			f.Errorf("%s: WWW-Authenticate is %q", what, got)
		}
	}
}

// httpRoute is what this test reads of the HTTPRoute that the page shows.
type httpRoute struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Hostnames []string
		Rules     []struct {
			Filters []struct {
				Type         string
				ExternalAuth struct {
					HTTP struct {
						Path                   string
						AllowedHeaders         []string
						AllowedResponseHeaders []string
					}
				}
				RequestHeaderModifier struct{ Remove []string }
			}
		}
	}
}

// backendTLSPolicy is what it reads of the BackendTLSPolicy.
type backendTLSPolicy struct {
	Spec struct{ Validation struct{ Hostname string } }
}

// fabricsConfiguration is what NGINX Gateway Fabric generates of an HTTPRoute with one rule of the filters ExternalAuth and
// RequestHeaderModifier: see updateLocationExternalAuthFilter, extractExternalAuthInternalLocations and createBaseProxySetHeaders in
// internal/controller/nginx/config/servers.go of its source, and the templates beside it, of August 2026.
var fabricsConfiguration = template.Must(template.New("").Funcs(template.FuncMap{
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

func startFabric(t testing.TB, settings settings) string {
	t.Helper()
	return startFabricAt(t, settings, "/auth/nginx-gateway-fabric/"+settings.namespace)
}

// startFabricAt starts nginx with what NGINX Gateway Fabric generates of the configuration that its page shows, with another path to ask.
func startFabricAt(t testing.TB, settings settings, path string) string {
	t.Helper()
	address := binaries.FreeAddress(t)
	documents := strings.Split(docsnippets.Shown(t, "nginx-gateway-fabric.md", "apikeys.yaml"), "\n---\n")
	var route httpRoute
	framework.Must(t, yaml.Unmarshal([]byte(documents[0]), &route))
	var policy backendTLSPolicy
	framework.Must(t, yaml.Unmarshal([]byte(documents[len(documents)-1]), &policy))
	filters := route.Spec.Rules[0].Filters
	asking, removed := filters[0].ExternalAuth.HTTP, filters[1].RequestHeaderModifier.Remove

	var configuration bytes.Buffer
	framework.Must(t, fabricsConfiguration.Execute(&configuration, map[string]any{
		"Listen": address, "Hostname": route.Spec.Hostnames[0], "Service": settings.service, "Authenticator": settings.authenticator,
		"InternalPath":   "/_ngf-internal-ext-auth-" + route.Metadata.Namespace + "_" + route.Metadata.Name + "_rule0",
		"Path":           docsnippets.ForTest(t, asking.Path, map[string]string{"/auth/nginx-gateway-fabric/shop": path}),
		"RequestHeaders": asking.AllowedHeaders, "ResponseHeaders": asking.AllowedResponseHeaders, "Removed": removed,
		"UpgradeRemoved": slices.Contains(removed, "Upgrade"), "ServerName": policy.Spec.Validation.Hostname, "CAFile": settings.caFile,
	}))
	// Its nginx asks upstream by HTTP/1.1 unless it is told otherwise, and this one by HTTP/1.0.
	runNginx(t, address, "proxy_http_version 1.1;\n"+configuration.String())
	return address
}

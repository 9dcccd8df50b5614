// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// authenticatorClient sends checks to an authenticator, as a gateway that the tests do not run.
type authenticatorClient struct {
	*shop
	http    *http.Client
	address string
	grpc    *grpc.ClientConn
}

func newAuthenticatorClient(s *shop) *authenticatorClient {
	s.Helper()
	authenticator := s.syncedAuthenticator()
	authorities := x509.NewCertPool()
	pem, err := os.ReadFile(s.caFile)
	framework.Must(s, err)
	authorities.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities, ServerName: proxies.AuthenticatorName}}
	s.Cleanup(transport.CloseIdleConnections)
	return &authenticatorClient{
		shop: s, http: &http.Client{Transport: transport}, address: authenticator.Address("authenticator"), grpc: s.dial(authenticator),
	}
}

// send sends a check over HTTP, and returns the status of the response. It sends the target unchanged.
func (c *authenticatorClient) send(method, target string, header http.Header) int {
	c.Helper()
	request, err := http.NewRequestWithContext(c.Context(), method, "https://"+c.address, http.NoBody)
	framework.Must(c, err)
	request.URL.Opaque = strings.Replace(target, "/shop", "/"+c.namespace, 1)
	request.Header = header
	response, err := c.http.Do(request)
	framework.Must(c, err)
	response.Body.Close()
	return response.StatusCode
}

// only returns the first value of the named headers of the client.
func only(client http.Header, names ...string) http.Header {
	header := http.Header{}
	for _, name := range names {
		if value := client.Get(name); value != "" {
			header.Set(name, value)
		}
	}
	return header
}

// gatewayChecks are the checks of gateways that the tests do not run, with the settings of their pages. Each returns the status of the
// client's response, where 200 grants the request.
var gatewayChecks = map[string]func(c *authenticatorClient, method, target string, client http.Header) int{
	"APISIX":          checkAsAPISIX,
	"agentgateway":    checkAsAgentgateway,
	"Cilium":          checkAsCilium,
	"Contour":         checkAsContour,
	"Envoy Gateway":   checkAsEnvoyGateway,
	"Envoy over HTTP": checkAsEnvoy,
	"Istio":           checkAsIstio,
	"Traefik":         checkAsTraefik,
}

// checkAsAPISIX sends what apisix/plugins/forward-auth.lua of APISIX 3.17 sends.
func checkAsAPISIX(c *authenticatorClient, method, target string, client http.Header) int {
	var configuration struct {
		Routes []struct {
			Plugins struct {
				ForwardAuth struct {
					URI            string   `json:"uri"`
					RequestHeaders []string `json:"request_headers"`
				} `json:"forward-auth"`
			}
		}
	}
	framework.Must(c, yaml.Unmarshal([]byte(docsnippets.CodeBlock(c, "apisix.md", "apisix.yaml")), &configuration))
	plugin := configuration.Routes[0].Plugins.ForwardAuth
	header := only(client, plugin.RequestHeaders...)
	header.Set("X-Forwarded-Proto", "https")
	header.Set("X-Forwarded-Method", method)
	header.Set("X-Forwarded-Host", "shop.example.com")
	header.Set("X-Forwarded-Uri", target)
	header.Set("X-Forwarded-For", "192.0.2.1")
	return c.send(http.MethodGet, pathOf(c, plugin.URI), header)
}

// checkAsAgentgateway sends what crates/agentgateway/src/http/ext_authz.rs of agentgateway 1.4 sends. Its path has no query.
func checkAsAgentgateway(c *authenticatorClient, method, target string, client http.Header) int {
	auth := gatewayAPIFilter(c)
	path, _, _ := strings.Cut(target, "?")
	return c.send(method, auth.Path+path, only(client, append(auth.AllowedHeaders, "Authorization")...))
}

// checkAsCilium sends what Envoy sends, which Cilium configures.
func checkAsCilium(c *authenticatorClient, method, target string, client http.Header) int {
	auth := gatewayAPIFilter(c)
	return c.sendAsEnvoy(method, auth.Path+target, only(client, append(auth.AllowedHeaders, "Authorization")...))
}

// checkAsContour sends the context of the HTTPProxy, and all headers of the client.
func checkAsContour(c *authenticatorClient, method, target string, client http.Header) int {
	documents := strings.Split(docsnippets.CodeBlock(c, "contour.md", "apikeys.yaml"), "\n---\n")
	var proxy struct {
		Spec struct {
			VirtualHost struct {
				Authorization struct {
					AuthPolicy struct{ Context map[string]string }
				}
			}
		}
	}
	framework.Must(c, yaml.Unmarshal([]byte(documents[1]), &proxy))
	return c.sendOverGRPC(proxy.Spec.VirtualHost.Authorization.AuthPolicy.Context, method, target, client)
}

// checkAsEnvoyGateway sends the context of the SecurityPolicy, and the headers that it names.
func checkAsEnvoyGateway(c *authenticatorClient, method, target string, client http.Header) int {
	documents := strings.Split(docsnippets.CodeBlock(c, "envoy-gateway.md", "apikeys.yaml"), "\n---\n")
	var policy struct {
		Spec struct {
			ExtAuth struct {
				ContextExtensions []struct{ Name, Value string }
				HeadersToExtAuth  []string
			}
		}
	}
	framework.Must(c, yaml.Unmarshal([]byte(documents[0]), &policy))
	extensions := map[string]string{}
	for _, extension := range policy.Spec.ExtAuth.ContextExtensions {
		extensions[extension.Name] = extension.Value
	}
	return c.sendOverGRPC(extensions, method, target, only(client, policy.Spec.ExtAuth.HeadersToExtAuth...))
}

// sendOverGRPC sends a check as Envoy does over gRPC, and returns the status of the client's response.
func (c *authenticatorClient) sendOverGRPC(extensions map[string]string, method, target string, header http.Header) int {
	c.Helper()
	if extensions["namespace"] != "shop" {
		c.Fatalf("the context extensions are %v", extensions)
	}
	extensions["namespace"] = c.namespace
	headers := map[string]string{":method": method, ":path": target, ":authority": "shop.example.com", ":scheme": "https"}
	for name, values := range header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	response, err := authv3.NewAuthorizationClient(c.grpc).Check(c.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: target, Host: "shop.example.com", Scheme: "https", Protocol: "HTTP/1.1", Headers: headers,
		}},
		ContextExtensions: extensions,
	}})
	framework.Must(c, err)
	if response.GetOkResponse() != nil {
		return http.StatusOK
	}
	return int(response.GetDeniedResponse().GetStatus().GetCode())
}

func checkAsEnvoy(c *authenticatorClient, method, target string, client http.Header) int {
	var filters []struct {
		TypedConfig struct {
			HTTPService struct {
				PathPrefix string `json:"path_prefix"`
			} `json:"http_service"`
			AllowedHeaders struct{ Patterns []struct{ Exact string } } `json:"allowed_headers"`
		} `json:"typed_config"`
	}
	framework.Must(c, yaml.Unmarshal([]byte(docsnippets.CodeBlock(c, "envoy.md", "http_filters, over HTTP")), &filters))
	var allowed []string
	for _, pattern := range filters[0].TypedConfig.AllowedHeaders.Patterns {
		allowed = append(allowed, pattern.Exact)
	}
	return c.sendAsEnvoy(method, filters[0].TypedConfig.HTTPService.PathPrefix+target, only(client, allowed...))
}

func checkAsIstio(c *authenticatorClient, method, target string, client http.Header) int {
	var mesh struct {
		ExtensionProviders []struct {
			EnvoyExtAuthzHTTP struct {
				PathPrefix                   string
				IncludeRequestHeadersInCheck []string
			} `json:"envoyExtAuthzHttp"`
		}
	}
	framework.Must(c, yaml.Unmarshal([]byte(docsnippets.CodeBlock(c, "istio.md", "mesh config")), &mesh))
	provider := mesh.ExtensionProviders[0].EnvoyExtAuthzHTTP
	return c.sendAsEnvoy(method, provider.PathPrefix+target, only(client, provider.IncludeRequestHeadersInCheck...))
}

// checkAsTraefik sends what pkg/middlewares/auth/forward.go of Traefik sends.
func checkAsTraefik(c *authenticatorClient, method, target string, client http.Header) int {
	documents := strings.Split(docsnippets.CodeBlock(c, "traefik.md", "apikeys.yaml"), "\n---\n")
	var middleware struct {
		Spec struct {
			ForwardAuth struct {
				Address            string
				AuthRequestHeaders []string
			}
		}
	}
	framework.Must(c, yaml.Unmarshal([]byte(documents[0]), &middleware))
	auth := middleware.Spec.ForwardAuth
	header := only(client, auth.AuthRequestHeaders...)
	header.Set("X-Forwarded-Method", method)
	header.Set("X-Forwarded-Proto", "https")
	header.Set("X-Forwarded-Host", "shop.example.com")
	header.Set("X-Forwarded-Uri", target)
	return c.send(http.MethodGet, pathOf(c, auth.Address), header)
}

// sendAsEnvoy adds the headers that Envoy's HTTP client adds.
func (c *authenticatorClient) sendAsEnvoy(method, target string, header http.Header) int {
	c.Helper()
	header.Set("X-Envoy-Internal", "true")
	header.Set("X-Forwarded-For", "192.0.2.1")
	header.Set("X-Envoy-Expected-Rq-Timeout-Ms", "2000")
	return c.send(method, target, header)
}

func pathOf(t testing.TB, address string) string {
	t.Helper()
	parsed, err := url.Parse(address)
	framework.Must(t, err)
	return parsed.Path
}

// gatewayAPIFilter is the HTTP part of the ExternalAuth filter of its page.
func gatewayAPIFilter(t testing.TB) (http externalAuthHTTP) {
	t.Helper()
	var route httpRoute
	documents := strings.Split(docsnippets.CodeBlock(t, "gateway-api.md", "apikeys.yaml"), "\n---\n")
	framework.Must(t, yaml.Unmarshal([]byte(documents[0]), &route))
	return route.Spec.Rules[0].Filters[0].ExternalAuth.HTTP
}

func TestChecksOfGatewaysThatAreNotRun(t *testing.T) {
	t.Parallel()
	c := newAuthenticatorClient(newShop(t, testenv.Shared(t)))
	apiKey := func(name string) http.Header { return http.Header{"X-Api-Key": {c.keys[name].token}} }
	for gateway, check := range gatewayChecks {
		for _, test := range []struct {
			name, method, target string
			header               http.Header
			want                 int
		}{
			{"read access, GET", "GET", "/articles?page=2&x=%2F..", apiKey("reader"), 200},
			{"read access, HEAD", "HEAD", "/", apiKey("reader"), 200},
			{"read access, POST", "POST", "/", apiKey("reader"), 401},
			{"read access, PROPFIND", "PROPFIND", "/", apiKey("reader"), 401},
			{"write access, DELETE", "DELETE", "/articles/1", apiKey("writer"), 200},
			{"write access, GET", "GET", "/", apiKey("writer"), 401},
			{"the key in Authorization", "GET", "/", http.Header{"Authorization": {"Bearer " + c.keys["reader"].token}}, 200},
			{"no key", "GET", "/", nil, 401},
			{"an unknown key", "GET", "/", apiKey("unknown"), 401},
			{"invariant 6: a key of another namespace", "GET", "/", apiKey("stranger"), 401},
			{"invariant 6: a path that names another namespace", "GET", "/../" + c.elsewhere + "/", apiKey("stranger"), 401},
			{"invariant 7: POST with forged methods", "POST", "/", http.Header{
				"X-Api-Key": {c.keys["reader"].token}, "X-Forwarded-Method": {"GET"}, "X-Original-Method": {"GET"}, "Method": {"GET"},
				"X-Http-Method-Override": {"GET"},
			}, 401},
		} {
			if got := check(c, test.method, test.target, test.header); got != test.want {
				t.Errorf("%s: %s: the response is %d, want %d", gateway, test.name, got, test.want)
			}
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// proxy is a gateway that sends a check before it forwards a request.
type proxy struct {
	name string
	// endpoint of its checks, without the namespace.
	endpoint string
	// start starts the program with the configuration of its page.
	start func(t testing.TB, settings proxies.Settings) proxies.Proxy
	// unavailable is its response to a client when the authenticator returns 503, and unreachable when it cannot connect.
	unavailable, unreachable int
	// passesResponsesOn is true if its client gets the whole denial, and not only the status and the challenge.
	passesResponsesOn bool
	// sendsAllHeaders is true if a check has all headers of the client's request.
	sendsAllHeaders bool
	// passesOn are headers of a client that reach the service, as the gateway's page states, and equal X-Auth-* where punctuation does not
	// count.
	passesOn http.Header
}

var (
	nginx = proxy{
		name: "nginx", endpoint: "/auth/nginx/", start: proxies.StartNginx,
		// auth_request treats all responses but 2xx, 401 and 403 as errors.
		unavailable: http.StatusInternalServerError, unreachable: http.StatusInternalServerError, sendsAllHeaders: true,
	}
	caddy = proxy{
		name: "caddy", endpoint: "/auth/forward/", start: proxies.StartCaddy,
		unavailable: http.StatusServiceUnavailable, unreachable: http.StatusBadGateway, passesResponsesOn: true, sendsAllHeaders: true,
		passesOn: http.Header{"X!auth!access": {"write"}, "X~auth~key~id": {"1"}},
	}
	haproxy = proxy{
		name: "haproxy", endpoint: "/auth/forward/", start: proxies.StartHAProxy,
		unavailable: http.StatusServiceUnavailable, unreachable: http.StatusServiceUnavailable, passesResponsesOn: true,
	}
)

// front is a running gateway in front of a service.
type front struct {
	*shop
	proxy
	service *service
	// address of the gateway.
	address string
}

// startFront starts a service, and a proxy in front of it that sends checks to this address.
func (p proxy) startFront(s *shop, authenticator string) *front {
	s.Helper()
	f := &front{shop: s, proxy: p, service: startService(s)}
	f.address = p.start(s, proxies.Settings{
		Namespace: s.namespace, Authenticator: authenticator, CAFile: s.caFile, Service: f.service.address,
	}).Address
	return f
}

// response is the response of a gateway to its client.
type response struct {
	status int
	header http.Header
	body   string
}

// send sends a request without a body. The request line has no HTTP version; header lines are sent unchanged.
func (f *front) send(requestLine string, headers ...string) response {
	f.Helper()
	return f.sendBody(requestLine, "", headers...)
}

// sendBody sends a request on a new connection. The headers frame the body.
func (f *front) sendBody(requestLine, body string, headers ...string) response {
	f.Helper()
	connection, err := net.Dial("tcp", f.address)
	framework.Must(f, err)
	defer connection.Close()
	framework.Must(f, connection.SetDeadline(time.Now().Add(framework.Timeout)))
	head := strings.Join(append([]string{requestLine + " HTTP/1.1", "Host: shop.example.com"}, headers...), "\r\n")
	_, err = io.WriteString(connection, head+"\r\n\r\n"+body)
	framework.Must(f, err)

	method, _, _ := strings.Cut(requestLine, " ")
	received, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	framework.Must(f, err)
	defer received.Body.Close()
	content, err := io.ReadAll(received.Body)
	framework.Must(f, err)
	return response{status: received.StatusCode, header: received.Header, body: string(content)}
}

// forwarded returns the request that the service received, from its response.
func (f *front) forwarded(a response) (r received) {
	f.Helper()
	if a.status != http.StatusOK {
		f.Fatalf("the response is %d %v %s, want 200", a.status, a.header, a.body)
	}
	framework.Must(f, json.Unmarshal([]byte(a.body), &r))
	return r
}

// expectDenied expects a response with this status, and that the request does not reach the service.
func (f *front) expectDenied(what string, status int, send func() response) response {
	f.Helper()
	before := f.service.requests.Load()
	a := send()
	if a.status != status {
		f.Errorf("the response to %s is %d, want %d: %v %s", what, a.status, status, a.header, a.body)
	}
	if f.service.requests.Load() != before {
		f.Errorf("%s reached the service", what)
	}
	return a
}

// foldPunctuation returns the name of a header for services that convert names to variables.
func foldPunctuation(header string) string {
	return strings.NewReplacer("_", "-", ".", "-", "!", "-", "~", "-").Replace(strings.ToLower(header))
}

// assertIdentity expects the identity headers of this key, once each, and no similar ones.
func (f *front) assertIdentity(r received, key key, app, access string) {
	f.Helper()
	got := http.Header{}
	for name, values := range r.Header {
		if plain := foldPunctuation(name); strings.HasPrefix(plain, "x-auth-") || plain == "x-api-key" {
			got[name] = values
		}
	}
	want := http.Header{
		"X-Auth-App":       {app},
		"X-Auth-Namespace": {key.namespace},
		"X-Auth-Key-Id":    {key.id},
		"X-Auth-Access":    {access},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("the identity that the service received differs (-want +got):\n%s", diff)
	}
}

// challenge is the WWW-Authenticate header of all denials.
const challenge = `Bearer realm="apikey-operator"`

func TestProxies(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t), "retired-nginx", "retired-caddy", "retired-haproxy")
	authenticator := s.syncedAuthenticator().Address("authenticator")
	for _, proxy := range []proxy{nginx, caddy, haproxy} {
		t.Run(proxy.name, func(t *testing.T) {
			t.Parallel()
			f := proxy.startFront(s.in(t), authenticator)
			for name, test := range map[string]func(f *front){
				"the service receives the identity, and not the key":           theServiceReceivesTheIdentityAndNotTheKey,
				"the method decides the access":                                theMethodDecidesTheAccess,
				"no header overrides the method":                               noHeaderOverridesTheMethod,
				"the service receives the whole body":                          theServiceReceivesTheWholeBody,
				"requests without a valid key do not reach the service":        requestsWithoutAValidKeyDoNotReachTheService,
				"invariant 6: a key of another namespace is denied":            aKeyOfAnotherNamespaceIsDenied,
				"invariant 7: clients cannot forge headers of the gateway":     clientsCannotForgeHeadersOfTheGateway,
				"no path selects another namespace":                            noPathSelectsAnotherNamespace,
				"WebSockets need read access":                                  webSocketsNeedReadAccess,
				"only WebSocket is upgraded":                                   onlyWebSocketIsUpgraded,
				"preflights of browsers need no key":                           preflightsNeedNoKey,
				"insufficient access can be 403":                               insufficientAccessCanBe403,
				"the requests of the index page have the expected responses":   theRequestsOfTheIndexPageHaveTheExpectedResponses,
				"invariant 5: a deactivated key is denied":                     aDeactivatedKeyIsDenied,
				"invariant 4: requests fail with 5xx without an authenticator": requestsFailWithoutAnAuthenticator,
			} {
				t.Run(name, func(t *testing.T) { test(f.in(t)) })
			}
		})
	}
}

// in returns the same gateway for a subtest.
func (f *front) in(t *testing.T) *front {
	t.Helper()
	inTest := *f
	inTest.shop = f.shop.in(t)
	return &inTest
}

func theServiceReceivesTheIdentityAndNotTheKey(f *front) {
	reader := f.keys["reader"]
	for _, test := range []struct {
		name          string
		headers       []string
		authorization []string
	}{
		{"the key in X-API-Key", []string{"X-API-Key: " + reader.token}, nil},
		{"the key in Authorization", []string{"Authorization: Bearer " + reader.token}, nil},
		{"the key in X-API-Key, Authorization for the service", []string{"X-API-Key: " + reader.token, "Authorization: Basic c2hvcDpzaG9w"},
			[]string{"Basic c2hvcDpzaG9w"}},
	} {
		r := f.forwarded(f.send("GET /articles?page=2&x=%2F..", append(test.headers, "Accept: text/plain")...))
		f.assertIdentity(r, reader, readersApp, "read")
		if diff := cmp.Diff(test.authorization, r.Header["Authorization"]); diff != "" {
			f.Errorf("%s: Authorization differs (-want +got):\n%s", test.name, diff)
		}
		if r.Method != http.MethodGet || r.Target != "/articles?page=2&x=%2F.." || r.Header.Get("Accept") != "text/plain" {
			f.Errorf("%s: the service received %s %s %v", test.name, r.Method, r.Target, r.Header)
		}
		if strings.Contains(fmt.Sprint(r), reader.token) {
			f.Errorf("%s: the service received the key", test.name)
		}
	}
}

func theMethodDecidesTheAccess(f *front) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		if a := f.send(method+" /", f.apiKey("reader")); a.status != http.StatusOK {
			f.Errorf("the response to %s with read access is %d", method, a.status)
		}
		f.expectDenied(method+" with write access", http.StatusUnauthorized, func() response { return f.send(method+" /", f.apiKey("writer")) })
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "PROPFIND"} {
		if r := f.forwarded(f.send(method+" /", f.apiKey("writer"), "Content-Length: 0")); r.Method != method {
			f.Errorf("%s became %s", method, r.Method)
		}
		f.expectDenied(method+" with read access", http.StatusUnauthorized, func() response {
			return f.send(method+" /", f.apiKey("reader"), "Content-Length: 0")
		})
	}
	f.assertIdentity(f.forwarded(f.send("POST /", f.apiKey("both"), "Content-Length: 0")), f.keys["both"], "Back%20office", "read,write")
}

func noHeaderOverridesTheMethod(f *front) {
	for _, header := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		underscored := strings.ReplaceAll(header, "-", "_")
		for _, spelling := range []string{header, strings.ToLower(header), underscored, strings.ToUpper(underscored), strings.ReplaceAll(header, "-", ".")} {
			for _, connection := range []string{"Connection: close", "Connection: " + spelling} {
				f.assertNotOverridden(f.forwarded(f.send("GET /", f.apiKey("both"), spelling+": DELETE", connection)))
			}
		}
		override := func(method, key, override string) response {
			return f.send(method+" /", f.apiKey(key), header+": "+override, "Content-Length: 0")
		}
		f.expectDenied("POST as a GET by "+header, http.StatusUnauthorized, func() response { return override("POST", "reader", "GET") })
		if f.sendsAllHeaders {
			f.expectDenied("GET as a DELETE by "+header, http.StatusUnauthorized, func() response { return override("GET", "reader", "DELETE") })
		} else {
			f.assertNotOverridden(f.forwarded(override("GET", "reader", "DELETE")))
		}
		f.assertNotOverridden(f.forwarded(override("POST", "writer", "DELETE")))
	}
}

// assertNotOverridden fails if the service received a header that overrides the method, where punctuation does not count.
func (f *front) assertNotOverridden(r received) {
	f.Helper()
	for name, values := range r.Header {
		if plain := foldPunctuation(name); strings.Contains(plain, "method-override") || plain == "x-http-method" {
			f.Errorf("the service received %s: %q", name, values)
		}
	}
}

func theServiceReceivesTheWholeBody(f *front) {
	body := strings.Repeat("0123456789abcdef", 1<<14)
	for name, sent := range map[string]struct{ framed, header string }{
		"with a length": {body, fmt.Sprintf("Content-Length: %d", len(body))},
		"in chunks":     {fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body), "Transfer-Encoding: chunked"},
	} {
		if r := f.forwarded(f.sendBody("POST /articles", sent.framed, f.apiKey("writer"), sent.header)); r.Body != body {
			f.Errorf("%s: %d bytes arrived of %d", name, len(r.Body), len(body))
		}
	}
}

func requestsWithoutAValidKeyDoNotReachTheService(f *front) {
	reader := f.keys["reader"].token
	for what, headers := range map[string][]string{
		"no key":             nil,
		"an unknown key":     {"X-API-Key: sq_unknown"},
		"a key twice":        {"X-API-Key: " + reader, "X-API-Key: " + reader},
		"two keys joined":    {"X-API-Key: " + reader + "," + reader},
		"an empty X-API-Key": {"X-API-Key:", "Authorization: Bearer " + reader},
		"another scheme":     {"Authorization: Basic " + reader},
		"a key in X_API_Key": {"X_API_Key: " + reader},
	} {
		a := f.expectDenied(what, http.StatusUnauthorized, func() response { return f.send("GET /", headers...) })
		if got := a.header["Www-Authenticate"]; !cmp.Equal(got, []string{challenge}) {
			f.Errorf("%s: WWW-Authenticate is %q", what, got)
		}
		const text = "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer."
		if f.passesResponsesOn != strings.Contains(a.body, text) {
			f.Errorf("%s: the body is %s", what, a.body)
		}
	}
}

func aKeyOfAnotherNamespaceIsDenied(f *front) {
	f.expectDenied("a key of another namespace", http.StatusUnauthorized, func() response { return f.send("GET /", f.apiKey("stranger")) })
}

func clientsCannotForgeHeadersOfTheGateway(f *front) {
	reader := f.keys["reader"]
	forged := []string{
		"X-Auth-App: Back%20office", "x-auth-namespace: elsewhere", "X-AUTH-KEY-ID: 1", "X-Auth-Access: read,write", "X-Auth-Access: write",
		"X_Auth_App: Back%20office", "X-Auth_Access: write", "x_auth-key_id: 1", "X_AUTH_NAMESPACE: elsewhere",
		"X.Auth.App: Back%20office", "X-Auth.Access: write", "X!Auth!Access: write", "X~Auth~Key~Id: 1",
	}
	methods := []string{"X-Original-Method: GET", "X-Forwarded-Method: GET", "X-HTTP-Method-Override: GET", "X_Original_Method: GET"}
	for what, connection := range map[string][]string{
		"nothing":                  nil,
		"the identity":             {"Connection: X-Auth-App, X-Auth-Access", "Connection: x-auth-namespace,X-Auth-Key-Id"},
		"the identity and close":   {"Connection: close, X-Auth-App, X-Auth-Key-Id"},
		"the identity and Upgrade": {"Connection: keep-alive, Upgrade, X-Auth-App", "Upgrade: h2c"},
	} {
		headers := append(append([]string{f.apiKey("reader")}, forged...), connection...)
		f.Run("Connection names "+what, func(t *testing.T) {
			f := f.in(t)
			r := f.forwarded(f.send("GET /", headers...))
			for name, values := range f.passesOn {
				if diff := cmp.Diff(values, r.Header[name]); diff != "" {
					t.Errorf("%s differs: if it no longer reaches the service, correct its page (-want +got):\n%s", name, diff)
				}
				delete(r.Header, name)
			}
			f.assertIdentity(r, reader, readersApp, "read")
		})
	}
	for what, connection := range map[string]string{
		"nothing":        "Connection: close",
		"the method":     "Connection: X-Original-Method, X-Forwarded-Method",
		"the key":        "Connection: X-API-Key",
		"method and key": "Connection: X-API-Key, X-Original-Method, X-Forwarded-Method",
	} {
		headers := append([]string{f.apiKey("reader"), connection, "Content-Length: 0"}, methods...)
		f.expectDenied("POST as a GET, Connection naming "+what, http.StatusUnauthorized, func() response { return f.send("POST /", headers...) })
	}
}

func noPathSelectsAnotherNamespace(f *front) {
	for _, path := range []string{
		"/../" + f.elsewhere, "/..%2f" + f.elsewhere, "/%2e%2e/" + f.elsewhere, "//" + f.elsewhere,
		f.endpoint + f.elsewhere, "/.." + f.endpoint + f.elsewhere, "/?" + f.endpoint + f.elsewhere,
		"http://shop.example.com" + f.endpoint + f.elsewhere, "/;" + f.endpoint + f.elsewhere,
	} {
		a := f.send("GET "+path, f.apiKey("stranger"))
		if a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
			f.Errorf("GET %s with a key of another namespace gets %d", path, a.status)
		}
		if a := f.send("GET "+path, f.apiKey("reader")); a.status != http.StatusBadRequest {
			f.assertIdentity(f.forwarded(a), f.keys["reader"], readersApp, "read")
		}
	}
}

func webSocketsNeedReadAccess(f *front) {
	dial := func(headers http.Header) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(f.Context(), "ws://"+f.address+echoPath, &websocket.DialOptions{HTTPHeader: headers})
	}
	for name, status := range map[string]int{"": http.StatusUnauthorized, "writer": http.StatusUnauthorized} {
		f.expectDenied("a WebSocket with the key "+name, status, func() response {
			_, received, err := dial(http.Header{"X-Api-Key": {f.keys[name].token}})
			if received == nil {
				f.Fatal(err)
			}
			return response{status: received.StatusCode, header: received.Header}
		})
	}

	connection, _, err := dial(http.Header{"X-Api-Key": {f.keys["reader"].token}, "X-Auth-App": {"Back%20office"}})
	framework.Must(f, err)
	defer func() { _ = connection.CloseNow() }()
	var greeting received
	_, message, err := connection.Read(f.Context())
	framework.Must(f, err)
	framework.Must(f, json.Unmarshal(message, &greeting))
	f.assertIdentity(greeting, f.keys["reader"], readersApp, "read")
	for _, sent := range []string{"hello", strings.Repeat("a longer message ", 1<<10)} {
		framework.Must(f, connection.Write(f.Context(), websocket.MessageText, []byte(sent)))
		if _, message, err := connection.Read(f.Context()); err != nil || string(message) != sent {
			f.Errorf("sent %d bytes, received %d: %v", len(sent), len(message), err)
		}
	}
	framework.Must(f, connection.Close(websocket.StatusNormalClosure, ""))
}

func onlyWebSocketIsUpgraded(f *front) {
	for what, test := range map[string]struct {
		upgrade []string
		want    []string
	}{
		"h2c":                     {[]string{"Upgrade: h2c"}, nil},
		"another":                 {[]string{"Upgrade: TLS/1.2"}, nil},
		"h2c first, in one line":  {[]string{"Upgrade: h2c, websocket"}, nil},
		"h2c second, in one line": {[]string{"Upgrade: websocket, h2c"}, nil},
		"WebSocket":               {[]string{"Upgrade: WebSocket"}, []string{"websocket"}},
		"h2c after WebSocket":     {[]string{"Upgrade: websocket", "Upgrade: h2c"}, []string{"websocket"}},
	} {
		upgrading := []string{f.apiKey("reader"), "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="} // HAProxy refuses WebSockets without it
		r := f.forwarded(f.send("GET /", append(upgrading, test.upgrade...)...))
		if diff := cmp.Diff(test.want, r.Header["Upgrade"]); diff != "" {
			f.Errorf("%s: the upgrade that the service received differs (-want +got):\n%s", what, diff)
		}
	}
	// Gateways differ in the line that they use.
	r := f.forwarded(f.send("GET /", f.apiKey("reader"), "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
	if got := strings.Join(r.Header["Upgrade"], ", "); got != "" && got != "websocket" {
		f.Errorf("h2c before WebSocket: the service received the upgrade %q", got)
	}
}

func preflightsNeedNoKey(f *front) {
	const origin = "https://shop.example.com"
	preflight := []string{"Origin: " + origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-api-key"}
	a := f.expectDenied("a preflight", http.StatusNoContent, func() response { return f.send("OPTIONS /articles", preflight...) })
	got := map[string][]string{}
	for name, values := range a.header {
		if strings.HasPrefix(name, "Access-Control-") {
			got[name] = values
		}
	}
	want := map[string][]string{
		"Access-Control-Allow-Origin":  {origin},
		"Access-Control-Allow-Methods": {"GET, HEAD, POST, PUT, PATCH, DELETE"},
		"Access-Control-Allow-Headers": {"X-API-Key, Authorization, Content-Type"},
		"Access-Control-Max-Age":       {"600"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("the response to the preflight differs (-want +got):\n%s", diff)
	}

	f.expectDenied("OPTIONS that is not a preflight", http.StatusUnauthorized, func() response { return f.send("OPTIONS /articles", "Origin: "+origin) })
	f.expectDenied("GET with the headers of a preflight", http.StatusUnauthorized, func() response { return f.send("GET /articles", preflight...) })
	for what, a := range map[string]response{
		"a response": f.send("GET /articles", f.apiKey("reader"), "Origin: "+origin),
		"a denial":   f.send("GET /articles", "Origin: "+origin),
	} {
		if got := a.header["Access-Control-Allow-Origin"]; !cmp.Equal(got, []string{origin}) {
			f.Errorf("%s has Access-Control-Allow-Origin %q", what, got)
		}
	}
}

func theRequestsOfTheIndexPageHaveTheExpectedResponses(f *front) {
	dir := f.TempDir()
	framework.Must(f, os.WriteFile(filepath.Join(dir, "key.header"), []byte(f.apiKey("reader")), 0o600))
	requests := strings.ReplaceAll(docsnippets.CodeBlock(f, "README.md", "requests"), "https://shop.example.com", "http://"+f.address)
	command := exec.CommandContext(f.Context(), "bash", "-euc", requests)
	command.Dir = dir
	command.Env = append(os.Environ(), binaries.DebianLibraryPath(f), "PATH="+filepath.Dir(binaries.Path(f, "debian", "usr", "bin", "curl")))
	output, err := command.Output()
	framework.Must(f, err)

	responses := bufio.NewReader(bytes.NewReader(output))
	for i, want := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusUnauthorized, http.StatusOK} {
		received, err := http.ReadResponse(responses, nil)
		framework.Must(f, err)
		content, err := io.ReadAll(received.Body)
		framework.Must(f, err)
		if received.StatusCode != want {
			f.Errorf("the response to request %d is %d, want %d", i+1, received.StatusCode, want)
		} else if want == http.StatusOK {
			f.assertIdentity(f.forwarded(response{status: want, body: string(content)}), f.keys["reader"], readersApp, "read")
		}
	}
}

func insufficientAccessCanBe403(f *front) {
	f = f.proxy.startFront(f.shop, f.syncedAuthenticator("--insufficient-access-status=403").Address("authenticator"))
	f.expectDenied("POST with read access", http.StatusForbidden, func() response {
		return f.send("POST /", f.apiKey("reader"), "Content-Length: 0")
	})
	f.expectDenied("no key", http.StatusUnauthorized, func() response { return f.send("GET /") })
}

func aDeactivatedKeyIsDenied(f *front) {
	retired := "retired-" + f.proxy.name
	f.forwarded(f.send("GET /", f.apiKey(retired)))
	f.deactivate(retired)
	framework.Eventually(f, "the deactivated key is denied", func() bool { return f.send("GET /", f.apiKey(retired)).status == http.StatusUnauthorized })
}

func requestsFailWithoutAnAuthenticator(f *front) {
	impostor := f.shop.in(f.T)
	impostor.certificate = newCertificate(f)
	for what, test := range map[string]struct {
		authenticator string
		status        int
	}{
		"an authenticator with a certificate of another CA": {impostor.syncedAuthenticator().Address("authenticator"), f.unreachable},
		"an authenticator that is not synced":               {f.unsyncedAuthenticator().Address("authenticator"), f.unavailable},
		"no authenticator":                                  {binaries.FreeAddress(f.T), f.unreachable},
	} {
		f := f.proxy.startFront(f.shop, test.authenticator)
		for request, headers := range map[string][]string{"a valid key": {f.apiKey("both")}, "no key": nil} {
			f.expectDenied(what+": "+request, test.status, func() response { return f.send("GET /", headers...) })
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// proxy is a gateway that asks before it forwards a request.
type proxy struct {
	name string
	// endpoint that it asks, without the namespace.
	endpoint string
	// start starts the program with the configuration that its page shows, and returns where it listens.
	start func(t testing.TB, settings settings) (address string)
	// unavailable is what its client gets for a 503 of the authenticator, and unreachable when there is none.
	unavailable, unreachable int
	// passesAnswersOn is true when its client gets an authenticator's refusal as it is, and not only its status and challenge.
	passesAnswersOn bool
	// sendsAllHeaders is true when the authenticator sees all headers of its client.
	sendsAllHeaders bool
	// passesOn are headers of a client that could pass for X-Auth-* where punctuation does not count, and that reach the service, as the
	// gateway's page says.
	passesOn http.Header
}

// settings are what a page's configuration says for production, and a test otherwise.
type settings struct {
	namespace, authenticator, caFile, service string
}

var proxies = []proxy{
	{
		name: "nginx", endpoint: "/auth/nginx/", start: startNginx,
		// auth_request takes every answer but 2xx, 401 and 403 for a failure of its own.
		unavailable: http.StatusInternalServerError, unreachable: http.StatusInternalServerError, sendsAllHeaders: true,
	},
	{
		name: "caddy", endpoint: "/auth/forward/", start: startCaddy,
		unavailable: http.StatusServiceUnavailable, unreachable: http.StatusBadGateway, passesAnswersOn: true, sendsAllHeaders: true,
		passesOn: http.Header{"X!auth!access": {"write"}, "X~auth~key~id": {"1"}},
	},
}

func (s settings) replacements(endpoint string) map[string]string {
	return map[string]string{
		serviceName + ":443":          s.authenticator,
		endpoint + "shop":             endpoint + s.namespace,
		"/etc/apikey-operator/ca.crt": s.caFile,
		"frontend.shop.svc:8080":      s.service,
	}
}

func startNginx(t testing.TB, settings settings) string {
	t.Helper()
	address := binaries.FreeAddress(t)
	replacements := settings.replacements("/auth/nginx/")
	replacements["listen 8000;"] = "listen " + address + ";"
	runNginx(t, address, docsnippets.ForTest(t, docsnippets.Shown(t, "nginx.md", "/etc/nginx/conf.d/shop.conf"), replacements))
	return address
}

// runNginx starts nginx with this in its http block, and returns once it listens at an address.
func runNginx(t testing.TB, address, configuration string) {
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
	startGateway(t, address, process.Command{
		Path: binaries.Path(t, "debian", "usr", "sbin", "nginx"),
		Args: []string{"-c", file, "-e", "stderr"},
		Env:  []string{binaries.LibrariesOfDebian(t)},
	})
}

func startCaddy(t testing.TB, settings settings) string {
	t.Helper()
	address, dir := binaries.FreeAddress(t), t.TempDir()
	_, port, _ := net.SplitHostPort(address)
	replacements := settings.replacements("/auth/forward/")
	replacements[":8000 {"] = "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n:" + port + " {"
	file := filepath.Join(dir, "Caddyfile")
	configure(t, file, docsnippets.Shown(t, "caddy.md", "/etc/caddy/Caddyfile"), replacements)
	startGateway(t, address, process.Command{
		Path: binaries.Path(t, "images", "caddy"),
		Args: []string{"run", "--config", file, "--adapter", "caddyfile"},
		Env:  []string{"XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir},
	})
	return address
}

// front is a running gateway before a service, in a shop.
type front struct {
	*shop
	proxy
	service *service
	// address of the gateway.
	address string
}

// stand starts a proxy before a service, which asks at this address.
func (p proxy) stand(s *shop, authenticator string) *front {
	s.Helper()
	f := &front{shop: s, proxy: p, service: startService(s)}
	f.address = p.start(s, settings{namespace: s.namespace, authenticator: authenticator, caFile: s.caFile, service: f.service.address})
	return f
}

// answer is what the client of a gateway gets.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends a request without a body: a request line without its HTTP version, and header lines, each as it is.
func (f *front) send(requestLine string, headers ...string) answer {
	f.Helper()
	return f.sendBody(requestLine, "", headers...)
}

// sendBody sends a request on a connection of its own. The headers say how the body is framed.
func (f *front) sendBody(requestLine, body string, headers ...string) answer {
	f.Helper()
	connection, err := net.Dial("tcp", f.address)
	framework.Must(f, err)
	defer connection.Close()
	framework.Must(f, connection.SetDeadline(time.Now().Add(framework.Timeout)))
	head := strings.Join(append([]string{requestLine + " HTTP/1.1", "Host: shop.example.com"}, headers...), "\r\n")
	_, err = io.WriteString(connection, head+"\r\n\r\n"+body)
	framework.Must(f, err)

	method, _, _ := strings.Cut(requestLine, " ")
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	framework.Must(f, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	framework.Must(f, err)
	return answer{status: response.StatusCode, header: response.Header, body: string(content)}
}

// forwarded returns what the service received of a request that was let through.
func (f *front) forwarded(a answer) (r received) {
	f.Helper()
	if a.status != http.StatusOK {
		f.Fatalf("the answer is %d %v %s, want 200", a.status, a.header, a.body)
	}
	framework.Must(f, json.Unmarshal([]byte(a.body), &r))
	return r
}

// refused fails the test unless a request was answered with this status and never reached the service.
func (f *front) refused(what string, status int, send func() answer) answer {
	f.Helper()
	before := f.service.requests.Load()
	a := send()
	if a.status != status {
		f.Errorf("%s is answered %d, want %d: %v %s", what, a.status, status, a.header, a.body)
	}
	if f.service.requests.Load() != before {
		f.Errorf("%s reached the service", what)
	}
	return a
}

// foldPunctuation returns the name that a header has for services that make variables of names.
func foldPunctuation(header string) string {
	return strings.NewReplacer("_", "-", ".", "-", "!", "-", "~", "-").Replace(strings.ToLower(header))
}

// assertIdentity fails the test unless the service was told, once each and by no other header, that this key asked.
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
		f.Errorf("the service is told (-want +got):\n%s", diff)
	}
}

// challenge is what every refusal of the authenticator has in WWW-Authenticate.
const challenge = `Bearer realm="apikey-operator"`

func TestProxies(t *testing.T) {
	t.Parallel()
	s := newShop(t, testenv.Shared(t), "retired-nginx", "retired-caddy")
	authenticator := s.syncedAuthenticator().Address("authenticator")
	for _, proxy := range proxies {
		t.Run(proxy.name, func(t *testing.T) {
			t.Parallel()
			f := proxy.stand(s.in(t), authenticator)
			for name, test := range map[string]func(f *front){
				"the service learns who asks, and not the key":          theServiceLearnsWhoAsksAndNotTheKey,
				"the method decides which right is needed":              theMethodDecidesWhichRightIsNeeded,
				"no header overrides the method":                        noHeaderOverridesTheMethod,
				"bodies arrive whole and are no part of the question":   bodiesArriveWhole,
				"without a good key nothing reaches the service":        withoutAGoodKeyNothingReachesTheService,
				"invariant 6: a key of another namespace is refused":    aKeyOfAnotherNamespaceIsRefused,
				"invariant 7: no client speaks for the gateway":         noClientSpeaksForTheGateway,
				"no path leads to another namespace":                    noPathLeadsToAnotherNamespace,
				"WebSockets need a key that may read":                   webSocketsNeedAKeyThatMayRead,
				"WebSocket alone is a protocol to change to":            webSocketAloneIsAProtocolToChangeTo,
				"preflights of browsers are answered without a key":     preflightsAreAnsweredWithoutAKey,
				"a good key without the right can be 403":               aGoodKeyWithoutTheRightCanBe403,
				"invariant 5: a deactivated key is refused":             aDeactivatedKeyIsRefused,
				"invariant 4: without an authenticator that knows, 5xx": withoutAnAuthenticatorNobodyPasses,
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

func theServiceLearnsWhoAsksAndNotTheKey(f *front) {
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

func theMethodDecidesWhichRightIsNeeded(f *front) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		if a := f.send(method+" /", f.apiKey("reader")); a.status != http.StatusOK {
			f.Errorf("%s with a key that may read is answered %d", method, a.status)
		}
		f.refused(method+" with a key that may only write", http.StatusUnauthorized, func() answer { return f.send(method+" /", f.apiKey("writer")) })
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "PROPFIND"} {
		if r := f.forwarded(f.send(method+" /", f.apiKey("writer"), "Content-Length: 0")); r.Method != method {
			f.Errorf("%s became %s", method, r.Method)
		}
		f.refused(method+" with a key that may only read", http.StatusUnauthorized, func() answer {
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
		override := func(method, key, named string) answer {
			return f.send(method+" /", f.apiKey(key), header+": "+named, "Content-Length: 0")
		}
		f.refused("POST as a GET by "+header, http.StatusUnauthorized, func() answer { return override("POST", "reader", "GET") })
		if f.sendsAllHeaders {
			f.refused("GET as a DELETE by "+header, http.StatusUnauthorized, func() answer { return override("GET", "reader", "DELETE") })
		} else {
			f.assertNotOverridden(f.forwarded(override("GET", "reader", "DELETE")))
		}
		f.assertNotOverridden(f.forwarded(override("POST", "writer", "DELETE")))
	}
}

// assertNotOverridden fails the test if the service received a header that makes another method of a request, where punctuation does not
// count.
func (f *front) assertNotOverridden(r received) {
	f.Helper()
	for name, values := range r.Header {
		if plain := foldPunctuation(name); strings.Contains(plain, "method-override") || plain == "x-http-method" {
			f.Errorf("the service received %s: %q", name, values)
		}
	}
}

func bodiesArriveWhole(f *front) {
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

func withoutAGoodKeyNothingReachesTheService(f *front) {
	reader := f.keys["reader"].token
	for what, headers := range map[string][]string{
		"no key":                       nil,
		"an unknown key":               {"X-API-Key: sq_unknown"},
		"a key twice":                  {"X-API-Key: " + reader, "X-API-Key: " + reader},
		"two keys joined":              {"X-API-Key: " + reader + "," + reader},
		"an empty X-API-Key":           {"X-API-Key:", "Authorization: Bearer " + reader},
		"another scheme":               {"Authorization: Basic " + reader},
		"a key in a header of no name": {"X_API_Key: " + reader},
	} {
		a := f.refused(what, http.StatusUnauthorized, func() answer { return f.send("GET /", headers...) })
		if got := a.header["Www-Authenticate"]; !cmp.Equal(got, []string{challenge}) {
			f.Errorf("%s: WWW-Authenticate is %q", what, got)
		}
		const text = "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer."
		if f.passesAnswersOn != strings.Contains(a.body, text) {
			f.Errorf("%s: the body is %s", what, a.body)
		}
	}
}

func aKeyOfAnotherNamespaceIsRefused(f *front) {
	f.refused("a key of another namespace", http.StatusUnauthorized, func() answer { return f.send("GET /", f.apiKey("stranger")) })
}

func noClientSpeaksForTheGateway(f *front) {
	reader := f.keys["reader"]
	forged := []string{
		"X-Auth-App: Back%20office", "x-auth-namespace: elsewhere", "X-AUTH-KEY-ID: 1", "X-Auth-Access: read,write", "X-Auth-Access: write",
		"X_Auth_App: Back%20office", "X-Auth_Access: write", "x_auth-key_id: 1", "X_AUTH_NAMESPACE: elsewhere",
		"X.Auth.App: Back%20office", "X-Auth.Access: write", "X!Auth!Access: write", "X~Auth~Key~Id: 1",
	}
	methods := []string{"X-Original-Method: GET", "X-Forwarded-Method: GET", "X-HTTP-Method-Override: GET", "X_Original_Method: GET"}
	for what, connection := range map[string][]string{
		"nothing":                 nil,
		"the identity":            {"Connection: X-Auth-App, X-Auth-Access", "Connection: x-auth-namespace,X-Auth-Key-Id"},
		"the identity and close":  {"Connection: close, X-Auth-App, X-Auth-Key-Id"},
		"the identity and a wish": {"Connection: keep-alive, Upgrade, X-Auth-App", "Upgrade: h2c"},
	} {
		headers := append(append([]string{f.apiKey("reader")}, forged...), connection...)
		f.Run("Connection names "+what, func(t *testing.T) {
			f := f.in(t)
			r := f.forwarded(f.send("GET /", headers...))
			for name, values := range f.passesOn {
				if diff := cmp.Diff(values, r.Header[name]); diff != "" {
					t.Errorf("%s differs: if it no longer reaches the service, its page can say so (-want +got):\n%s", name, diff)
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
		f.refused("POST as a GET, Connection naming "+what, http.StatusUnauthorized, func() answer { return f.send("POST /", headers...) })
	}
}

func noPathLeadsToAnotherNamespace(f *front) {
	for _, path := range []string{
		"/../" + f.elsewhere, "/..%2f" + f.elsewhere, "/%2e%2e/" + f.elsewhere, "//" + f.elsewhere,
		f.endpoint + f.elsewhere, "/.." + f.endpoint + f.elsewhere, "/?" + f.endpoint + f.elsewhere,
		"http://shop.example.com" + f.endpoint + f.elsewhere, "/;" + f.endpoint + f.elsewhere,
	} {
		a := f.send("GET "+path, f.apiKey("stranger"))
		if a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
			f.Errorf("GET %s with a key of another namespace is answered %d", path, a.status)
		}
		if a := f.send("GET "+path, f.apiKey("reader")); a.status != http.StatusBadRequest {
			f.assertIdentity(f.forwarded(a), f.keys["reader"], readersApp, "read")
		}
	}
}

func webSocketsNeedAKeyThatMayRead(f *front) {
	dial := func(headers http.Header) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(f.Context(), "ws://"+f.address+echoPath, &websocket.DialOptions{HTTPHeader: headers})
	}
	for name, status := range map[string]int{"": http.StatusUnauthorized, "writer": http.StatusUnauthorized} {
		f.refused("a WebSocket with the key "+name, status, func() answer {
			_, response, err := dial(http.Header{"X-Api-Key": {f.keys[name].token}})
			if response == nil {
				f.Fatal(err)
			}
			return answer{status: response.StatusCode, header: response.Header}
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
			f.Errorf("%d bytes came back as %d: %v", len(sent), len(message), err)
		}
	}
	framework.Must(f, connection.Close(websocket.StatusNormalClosure, ""))
}

func webSocketAloneIsAProtocolToChangeTo(f *front) {
	for what, test := range map[string]struct {
		upgrade []string
		want    []string
	}{
		"h2c":                 {[]string{"Upgrade: h2c"}, nil},
		"another":             {[]string{"Upgrade: TLS/1.2"}, nil},
		"h2c before, in one":  {[]string{"Upgrade: h2c, websocket"}, nil},
		"h2c after, in one":   {[]string{"Upgrade: websocket, h2c"}, nil},
		"WebSocket":           {[]string{"Upgrade: WebSocket"}, []string{"websocket"}},
		"h2c after WebSocket": {[]string{"Upgrade: websocket", "Upgrade: h2c"}, []string{"websocket"}},
	} {
		asking := []string{f.apiKey("reader"), "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}
		r := f.forwarded(f.send("GET /", append(asking, test.upgrade...)...))
		if diff := cmp.Diff(test.want, r.Header["Upgrade"]); diff != "" {
			f.Errorf("%s: the service is asked to change to (-want +got):\n%s", what, diff)
		}
	}
	// What counts of two lines is up to the gateway.
	r := f.forwarded(f.send("GET /", f.apiKey("reader"), "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"))
	if got := strings.Join(r.Header["Upgrade"], ", "); got != "" && got != "websocket" {
		f.Errorf("h2c before WebSocket: the service is asked to change to %q", got)
	}
}

func preflightsAreAnsweredWithoutAKey(f *front) {
	const origin = "https://shop.example.com"
	preflight := []string{"Origin: " + origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-api-key"}
	a := f.refused("a preflight", http.StatusNoContent, func() answer { return f.send("OPTIONS /articles", preflight...) })
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
		f.Errorf("the preflight's answer differs (-want +got):\n%s", diff)
	}

	f.refused("OPTIONS that is no preflight", http.StatusUnauthorized, func() answer { return f.send("OPTIONS /articles", "Origin: "+origin) })
	f.refused("GET that looks like a preflight", http.StatusUnauthorized, func() answer { return f.send("GET /articles", preflight...) })
	for what, a := range map[string]answer{
		"an answer": f.send("GET /articles", f.apiKey("reader"), "Origin: "+origin),
		"a refusal": f.send("GET /articles", "Origin: "+origin),
	} {
		if got := a.header["Access-Control-Allow-Origin"]; !cmp.Equal(got, []string{origin}) {
			f.Errorf("%s has Access-Control-Allow-Origin %q", what, got)
		}
	}
}

func aGoodKeyWithoutTheRightCanBe403(f *front) {
	f = f.proxy.stand(f.shop, f.syncedAuthenticator("--insufficient-access-status=403").Address("authenticator"))
	f.refused("POST with a key that may only read", http.StatusForbidden, func() answer {
		return f.send("POST /", f.apiKey("reader"), "Content-Length: 0")
	})
	f.refused("no key", http.StatusUnauthorized, func() answer { return f.send("GET /") })
}

func aDeactivatedKeyIsRefused(f *front) {
	retired := "retired-" + f.proxy.name
	f.forwarded(f.send("GET /", f.apiKey(retired)))
	f.deactivate(retired)
	framework.Eventually(f, "the deactivated key is refused", func() bool { return f.send("GET /", f.apiKey(retired)).status == http.StatusUnauthorized })
}

func withoutAnAuthenticatorNobodyPasses(f *front) {
	impostor := f.shop.in(f.T)
	impostor.certificate = newCertificate(f)
	for what, test := range map[string]struct {
		authenticator string
		status        int
	}{
		"an authenticator that another authority vouches for": {impostor.syncedAuthenticator().Address("authenticator"), f.unreachable},
		"an authenticator that knows no keys yet":             {f.unsyncedAuthenticator().Address("authenticator"), f.unavailable},
		"no authenticator": {binaries.FreeAddress(f.T), f.unreachable},
	} {
		f := f.proxy.stand(f.shop, test.authenticator)
		for request, headers := range map[string][]string{"a good key": {f.apiKey("both")}, "no key": nil} {
			f.refused(what+": "+request, test.status, func() answer { return f.send("GET /", headers...) })
		}
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// timeout bounds every wait for an answer.
const timeout = 10 * time.Second

var now = time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)

// The tokens of the keys that the tests ask about.
const (
	readToken        = "sq_read"
	writeToken       = "sq_write"
	bothToken        = "sq_both"
	deactivatedToken = "sq_deactivated"
	expiredToken     = "sq_expired"
	supersededToken  = "sq_superseded"
	unissuedToken    = "sq_unissued"
	endingToken      = "sq_ending"
	otherToken       = "sq_other_namespace"
)

func keys() []any {
	return []any{
		newKey("shop", "reader", readToken, func(k *v1alpha1.APIKey) { k.Spec.ReadAccess = true; k.Spec.AppName = "Frontend App" }),
		newKey("shop", "writer", writeToken, func(k *v1alpha1.APIKey) { k.Spec.WriteAccess = true; k.Spec.AppName = "Größe 🦀" }),
		newKey("shop", "both", bothToken, func(k *v1alpha1.APIKey) { k.Spec.ReadAccess, k.Spec.WriteAccess = true, true }),
		newKey("shop", "deactivated", deactivatedToken, func(k *v1alpha1.APIKey) { k.Spec.ReadAccess = true; k.Spec.Active = new(false) }),
		newKey("shop", "expired", expiredToken, func(k *v1alpha1.APIKey) {
			k.Spec.ReadAccess = true
			k.Spec.ExpiresAt = &metav1.Time{Time: now}
		}),
		newKey("shop", "superseded", supersededToken, func(k *v1alpha1.APIKey) {
			k.Spec.ReadAccess = true
			k.Status.Tokens[0].NotAfter = &metav1.Time{Time: now}
		}),
		newKey("shop", "unissued", unissuedToken, func(k *v1alpha1.APIKey) {
			k.Spec.ReadAccess = true
			k.Status.Tokens[0].NotBefore = nil
		}),
		newKey("shop", "ending", endingToken, func(k *v1alpha1.APIKey) {
			k.Spec.ReadAccess = true
			k.Spec.ExpiresAt = &metav1.Time{Time: now.Add(time.Hour)}
		}),
		newKey("other", "reader", otherToken, func(k *v1alpha1.APIKey) { k.Spec.ReadAccess = true }),
		newKey(strings.Repeat("n", 63), "reader", readToken, func(k *v1alpha1.APIKey) { k.Spec.ReadAccess = true }),
	}
}

func newKey(namespace, name, plaintext string, change func(*v1alpha1.APIKey)) *v1alpha1.APIKey {
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name + "-uid")},
		Spec:       v1alpha1.APIKeySpec{AppName: name},
		Status: v1alpha1.APIKeyStatus{
			Tokens: []v1alpha1.TokenRecord{{Hash: token.Hash(plaintext), NotBefore: &metav1.Time{Time: now.Add(-time.Hour)}}},
		},
	}
	change(key)
	return key
}

// setup is a gateway handler and what it works with. The zero value is the default one, with the keys of the tests.
type setup struct {
	unsynced                 bool
	maxStaleness             time.Duration
	clock                    func() time.Time
	insufficientAccessStatus int
	registry                 *prometheus.Registry
	log                      *slog.Logger
}

func (s setup) handler(tb testing.TB) http.Handler {
	tb.Helper()
	return gateway.NewHandler(s.parts(tb))
}

// parts are what the ways to ask are made of.
func (s setup) parts(tb testing.TB) (*authn.Authenticator, gateway.Options) {
	tb.Helper()
	keyring := authn.NewKeyring()
	if !s.unsynced {
		if err := keyring.Replace(keys(), "1"); err != nil {
			tb.Fatal(err)
		}
	}
	if s.clock == nil {
		s.clock = func() time.Time { return now }
	}
	if s.insufficientAccessStatus == 0 {
		s.insufficientAccessStatus = http.StatusUnauthorized
	}
	if s.registry == nil {
		s.registry = prometheus.NewRegistry()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return authn.NewAuthenticator(keyring, s.maxStaleness, s.clock), gateway.Options{
		InsufficientAccessStatus: s.insufficientAccessStatus,
		Metrics:                  gateway.NewMetrics(s.registry, keyring),
		Log:                      s.log,
	}
}

// serve serves the handler on a real socket and returns its address.
func (s setup) serve(tb testing.TB) string {
	tb.Helper()
	server := httptest.NewServer(s.handler(tb))
	tb.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// protocols are the ways to ask the same over HTTP.
var protocols = []string{"envoy", "nginx", "nginx-gateway-fabric", "forward"}

// methodHeaders are where those that do not ask with the client's method have it.
var methodHeaders = map[string]string{"nginx": "X-Original-Method", "nginx-gateway-fabric": "Method", "forward": "X-Forwarded-Method"}

// ask writes, as this protocol does, the head of a request about a GET of /some/path in the namespace shop.
func ask(protocol string, headers ...string) string {
	return askMethod(protocol, "GET", headers...)
}

func askMethod(protocol, method string, headers ...string) string {
	if protocol == "envoy" {
		return head(method+" /auth/envoy/shop/some/path", headers...)
	}
	return head("GET /auth/"+protocol+"/shop", append(headers, methodHeaders[protocol]+": "+method)...)
}

func head(methodAndTarget string, headers ...string) string {
	lines := append([]string{methodAndTarget + " HTTP/1.1", "Host: auth"}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// answer is all of an HTTP answer but its date.
type answer struct {
	Status int
	Header map[string]string
	Body   string
}

// send writes a request as it stands on a connection of its own, and returns the answer.
func send(tb testing.TB, address, request string) answer {
	tb.Helper()
	return exchange(tb, address, request, func(net.Conn) error { return nil })
}

// sendAndClose does what send does, and says that nothing more will be sent.
func sendAndClose(tb testing.TB, address, request string) answer {
	tb.Helper()
	return exchange(tb, address, request, func(connection net.Conn) error { return connection.(*net.TCPConn).CloseWrite() })
}

func exchange(tb testing.TB, address, request string, sent func(net.Conn) error) answer {
	tb.Helper()
	connection, err := new(net.Dialer).DialContext(tb.Context(), "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.WriteString(connection, request); err != nil {
		tb.Fatal(err)
	}
	if err := sent(connection); err != nil {
		tb.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	if err != nil {
		tb.Fatal(err)
	}
	return read(tb, response)
}

func read(tb testing.TB, response *http.Response) answer {
	tb.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	got := answer{Status: response.StatusCode, Header: map[string]string{}, Body: string(body)}
	for name, values := range response.Header {
		if name != "Date" {
			got.Header[name] = strings.Join(values, " | ")
		}
	}
	if response.Close {
		got.Header["Connection"] = "close" // net/http takes it away
	}
	return got
}

func assertAnswer(t *testing.T, got, want answer) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the answer differs (-want +got):\n%s", diff)
	}
}

// granted is the answer to a granted request.
func granted(app, namespace, keyID, access string) answer {
	return answer{Status: 200, Header: map[string]string{
		"Content-Length":   "0",
		"Cache-Control":    "no-store",
		"X-Auth-App":       app,
		"X-Auth-Namespace": namespace,
		"X-Auth-Key-Id":    keyID,
		"X-Auth-Access":    access,
	}}
}

// envelope is an error answer.
func envelope(status int, message string) answer {
	quoted, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	body := `{"errorCode":` + strconv.Itoa(status) + `,"errorMessage":` + string(quoted) + `,"payload":null}`
	return answer{Status: status, Body: body, Header: map[string]string{
		"Cache-Control":  "no-store",
		"Content-Type":   "application/json",
		"Content-Length": strconv.Itoa(len(body)),
	}}
}

// and returns the answer with one more header.
func (a answer) and(name, value string) answer {
	a.Header = maps.Clone(a.Header)
	a.Header[name] = value
	return a
}

// The error answers, each with its exact text.
var (
	unauthenticated = envelope(401, "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.").
			and("Www-Authenticate", `Bearer realm="apikey-operator"`)
	noReadAccess = envelope(401, "API key does not have read access").
			and("Www-Authenticate", `Bearer realm="apikey-operator"`)
	noWriteAccess = envelope(401, "API key does not have write access").
			and("Www-Authenticate", `Bearer realm="apikey-operator"`)
	unavailable = envelope(503, "API keys cannot be checked at the moment: try again.").
			and("Retry-After", "1")

	// badRequest is net/http's own answer to what is no HTTP.
	badRequest = answer{
		Status: 400,
		Header: map[string]string{"Content-Type": "text/plain; charset=utf-8", "Connection": "close"},
		Body:   "400 Bad Request",
	}

	wrongEnvoyMethod = envelope(400, "/auth/envoy takes the method of the check itself, but a header of the check names the method of the "+
		"client's request, such as Method, X-Original-Method or X-Forwarded-Method. Use /auth/nginx/{namespace} for nginx, "+
		"/auth/nginx-gateway-fabric/{namespace} for NGINX Gateway Fabric, /auth/forward/{namespace} for Traefik and Caddy. Configure Envoy "+
		"not to send these headers.")
	wrongNginxMethod = envelope(400, "The X-Original-Method header of the check is missing, repeated or not a method. In the location that "+
		"auth_request names, set proxy_set_header X-Original-Method $request_method;")
	wrongFabricMethod = envelope(400, "The Method header of the check is missing, repeated or not a method. The ExternalAuth filter of NGINX "+
		"Gateway Fabric sets it; for any other gateway, use another endpoint.")
	wrongForwardMethod = envelope(400, "The X-Forwarded-Method header of the check is missing, repeated or not a method. Traefik's "+
		"ForwardAuth and Caddy's forward_auth set it; configure any other gateway to set it to the method of the client's request.")
	wrongMethods = map[string]answer{
		"envoy": wrongEnvoyMethod, "nginx": wrongNginxMethod, "nginx-gateway-fabric": wrongFabricMethod, "forward": wrongForwardMethod,
	}

	wrongEnvoyPath = wrongPath("/auth/envoy/{namespace}/...", " The dots stand for the path of the client's request, which Envoy appends. "+
		"For a gateway that sends all checks to one path, use another endpoint, such as /auth/nginx/{namespace}: it does not send the method "+
		"of the client's request either.")
	wrongNginxPath   = wrongPath("/auth/nginx/{namespace}")
	wrongFabricPath  = wrongPath("/auth/nginx-gateway-fabric/{namespace}")
	wrongForwardPath = wrongPath("/auth/forward/{namespace}")
	unknownPath      = wrongPath("/auth/envoy/{namespace}/... or /auth/nginx/{namespace} or " +
		"/auth/nginx-gateway-fabric/{namespace} or /auth/forward/{namespace} or /auth/tokenreview/{namespace} or " +
		"/auth/introspect/{namespace}")
)

func wrongPath(path string, more ...string) answer {
	return envelope(404, "No endpoint exists at this path. Use "+path+", where {namespace} is the Kubernetes namespace of the keys: 1 to 63 "+
		"characters of a-z, 0-9 and '-', starting and ending with a letter or digit, not percent-encoded."+strings.Join(more, ""))
}

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
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/webhook/authn"
	"squirrel.dev/apikey-operator/webhook/gateway"
)

// timeout bounds the wait for a response.
const timeout = 10 * time.Second

var now = time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)

// The tokens of the keys.
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

// setup is the configuration of a handler. The zero value has the keys of the tests.
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

// parts returns what the protocols are created with.
func (s setup) parts(tb testing.TB) (*authn.Authenticator, gateway.Options) {
	tb.Helper()
	keyring := authn.NewKeyring()
	if !s.unsynced {
		framework.Must(tb, keyring.Replace(keys(), "1"))
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

// protocols are the HTTP protocols with the headers of the client's request.
var protocols = []string{"envoy", "nginx", "nginx-gateway-fabric", "forward"}

// methodHeaders are the headers with the method, for the protocols that have one.
var methodHeaders = map[string]string{"nginx": "X-Original-Method", "nginx-gateway-fabric": "Method", "forward": "X-Forwarded-Method"}

// httpCheck returns the head of a check for a GET of /some/path in the namespace shop.
func httpCheck(protocol string, headers ...string) string {
	return httpCheckOf(protocol, "GET", headers...)
}

func httpCheckOf(protocol, method string, headers ...string) string {
	if protocol == "envoy" {
		return head(method+" /auth/envoy/shop/some/path", headers...)
	}
	return head("GET /auth/"+protocol+"/shop", append(headers, methodHeaders[protocol]+": "+method)...)
}

func head(methodAndTarget string, headers ...string) string {
	lines := append([]string{methodAndTarget + " HTTP/1.1", "Host: auth"}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// response is an HTTP response without its date.
type response struct {
	Status int
	Header map[string]string
	Body   string
}

// send writes the bytes of a request to a new connection, and returns the response.
func send(tb testing.TB, address, request string) response {
	tb.Helper()
	return exchange(tb, address, request, func(net.Conn) error { return nil })
}

// sendAndClose does what send does, and closes the connection for writing after the request.
func sendAndClose(tb testing.TB, address, request string) response {
	tb.Helper()
	return exchange(tb, address, request, func(connection net.Conn) error { return connection.(*net.TCPConn).CloseWrite() })
}

func exchange(tb testing.TB, address, request string, sent func(net.Conn) error) response {
	tb.Helper()
	connection, err := new(net.Dialer).DialContext(tb.Context(), "tcp", address)
	framework.Must(tb, err)
	defer connection.Close()
	framework.Must(tb, connection.SetDeadline(time.Now().Add(timeout)))
	if _, err := io.WriteString(connection, request); err != nil {
		tb.Fatal(err)
	}
	framework.Must(tb, sent(connection))
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	framework.Must(tb, err)
	return read(tb, response)
}

func read(tb testing.TB, from *http.Response) response {
	tb.Helper()
	defer from.Body.Close()
	body, err := io.ReadAll(from.Body)
	framework.Must(tb, err)
	got := response{Status: from.StatusCode, Header: map[string]string{}, Body: string(body)}
	for name, values := range from.Header {
		if name != "Date" {
			got.Header[name] = strings.Join(values, " | ")
		}
	}
	if from.Close {
		got.Header["Connection"] = "close" // net/http removes it
	}
	return got
}

func assertResponse(t *testing.T, got, want response) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the response differs (-want +got):\n%s", diff)
	}
}

// granted is the response to a granted request.
func granted(app, namespace, keyID, access string) response {
	return response{Status: 200, Header: map[string]string{
		"Content-Length":   "0",
		"Cache-Control":    "no-store",
		"X-Auth-App":       app,
		"X-Auth-Namespace": namespace,
		"X-Auth-Key-Id":    keyID,
		"X-Auth-Access":    access,
	}}
}

// errorResponse is an error in the JSON envelope.
func errorResponse(status int, message string) response {
	quoted, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	body := `{"errorCode":` + strconv.Itoa(status) + `,"errorMessage":` + string(quoted) + `,"payload":null}`
	return response{Status: status, Body: body, Header: map[string]string{
		"Cache-Control":  "no-store",
		"Content-Type":   "application/json",
		"Content-Length": strconv.Itoa(len(body)),
	}}
}

// and returns the response with one more header.
func (a response) and(name, value string) response {
	a.Header = maps.Clone(a.Header)
	a.Header[name] = value
	return a
}

// The error responses, with their exact texts.
var (
	unauthenticated = errorResponse(401, "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.").
			and("Www-Authenticate", `Bearer realm="apikey-operator"`)
	noReadAccess = errorResponse(401, "API key does not have read access").
			and("Www-Authenticate", `Bearer realm="apikey-operator"`)
	noWriteAccess = errorResponse(401, "API key does not have write access").
			and("Www-Authenticate", `Bearer realm="apikey-operator"`)
	unavailable = errorResponse(503, "API keys cannot be checked at the moment: try again.").
			and("Retry-After", "1")

	// badRequest is the response of net/http to a request that is not valid HTTP.
	badRequest = response{
		Status: 400,
		Header: map[string]string{"Content-Type": "text/plain; charset=utf-8", "Connection": "close"},
		Body:   "400 Bad Request",
	}

	wrongEnvoyMethod = errorResponse(400, "/auth/envoy takes the method of the check itself, but a header of the check names the method of the "+
		"client's request, such as Method, X-Original-Method or X-Forwarded-Method. Use /auth/nginx/{namespace} for nginx, "+
		"/auth/nginx-gateway-fabric/{namespace} for NGINX Gateway Fabric, /auth/forward/{namespace} for Traefik and Caddy. Configure Envoy "+
		"not to send these headers.")
	wrongNginxMethod = errorResponse(400, "The X-Original-Method header of the check is missing, repeated or not a method. In the location that "+
		"auth_request names, set proxy_set_header X-Original-Method $request_method;")
	wrongFabricMethod = errorResponse(400, "The Method header of the check is missing, repeated or not a method. The ExternalAuth filter of NGINX "+
		"Gateway Fabric sets it; for any other gateway, use another endpoint.")
	wrongForwardMethod = errorResponse(400, "The X-Forwarded-Method header of the check is missing, repeated or not a method. Traefik's "+
		"ForwardAuth and Caddy's forward_auth set it; configure any other gateway to set it to the method of the client's request.")
	wrongMethods = map[string]response{
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

func wrongPath(path string, more ...string) response {
	return errorResponse(404, "No endpoint exists at this path. Use "+path+", where {namespace} is the Kubernetes namespace of the keys: 1 to 63 "+
		"characters of a-z, 0-9 and '-', starting and ending with a letter or digit, not percent-encoded."+strings.Join(more, ""))
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// fixture has the keys of the table, and authenticators.
type fixture struct {
	testing.TB
	env     *testenv.Env
	keys    map[string]key
	servers map[string]*server
	// placeholders replaces the names in braces.
	placeholders *strings.Replacer
}

// key is an APIKey and its token.
type key struct {
	token, namespace, name, app, uid string
	rights                           []string
	issuedAt                         int64
	// expiresAt is 0 if the key does not expire.
	expiresAt int64
}

// server is an authenticator with TLS.
type server struct {
	address string
	http    *http.Client
	envoy   authv3.AuthorizationClient
}

var (
	// imported are the tokens of the keys with an imported hash.
	imported = map[string]string{"imported": token.New(), "superseded": token.New(), "replaced": token.New()}

	endOfCentury = metav1.Date(2099, time.December, 31, 0, 0, 0, 0, time.UTC)
)

// specs are the specs of the keys.
var specs = map[string]v1alpha1.APIKeySpec{
	"reader":      {AppName: "Frontend für Läden", ReadAccess: true},
	"writer":      {AppName: "Importer", WriteAccess: true},
	"both":        {AppName: "Back office", ReadAccess: true, WriteAccess: true},
	"imported":    {AppName: "From elsewhere", ReadAccess: true, TokenHash: token.Hash(imported["imported"])},
	"expiring":    {AppName: "Until the end of the century", ReadAccess: true, ExpiresAt: &endOfCentury},
	"deactivated": {AppName: "Deactivated", ReadAccess: true},
	"expired":     {AppName: "Expired", ReadAccess: true},
	"deleted":     {AppName: "Deleted", ReadAccess: true},
	"superseded":  {AppName: "Rotated", ReadAccess: true, TokenHash: token.Hash(imported["superseded"])},
	"replaced": {AppName: "Rotated after a leak", ReadAccess: true, TokenHash: token.Hash(imported["replaced"]),
		Rotation: &v1alpha1.Rotation{Overlap: &metav1.Duration{}}},
	"stranger": {AppName: "In another namespace", ReadAccess: true},
}

// newFixture starts a controller and the authenticators, creates the keys, and ends some of them when they are accepted.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{TB: t, env: testenv.Shared(t), keys: map[string]key{}, servers: map[string]*server{}}
	operator.StartController(t, f.env.Config)
	f.startAuthenticators()
	f.createKeys()
	f.awaitIssued()
	f.setPlaceholders()
	for name := range specs {
		f.awaitAccepted(name, true)
	}
	f.endKeys()
	f.rotateKeys()
	for _, name := range []string{"deactivated", "expired", "deleted", "replaced"} {
		f.awaitAccepted(name, false)
	}
	return f
}

// in returns the same fixture for a subtest.
func (f *fixture) in(t *testing.T) *fixture {
	t.Helper()
	inTest := *f
	inTest.TB = t
	return &inTest
}

func (f *fixture) startAuthenticators() {
	f.Helper()
	const serverName = "apikey-authenticator.apikey-system.svc"
	certificate, private, err := certutil.GenerateSelfSignedCertKey(serverName, nil, nil)
	framework.Must(f, err)
	dir := f.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	framework.Must(f, os.WriteFile(certFile, certificate, 0o600))
	framework.Must(f, os.WriteFile(keyFile, private, 0o600))
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(certificate)
	client := &tls.Config{RootCAs: trusted, ServerName: serverName}

	flags := []string{"--tls-cert-file=" + certFile, "--tls-private-key-file=" + keyFile}
	unreachable := &rest.Config{Host: "http://127.0.0.1:1"}
	f.servers[synced] = f.connect(client, operator.StartAuthenticator(f, f.env.Config, flags...))
	f.servers[with403] = f.connect(client, operator.StartAuthenticator(f, f.env.Config, append(flags, with403)...))
	f.servers[notSynced] = f.connect(client, operator.StartAuthenticator(f, unreachable, flags...))
}

func (f *fixture) connect(client *tls.Config, authenticator *operator.Process) *server {
	f.Helper()
	connection, err := grpc.NewClient(authenticator.Address("grpc"), grpc.WithTransportCredentials(credentials.NewTLS(client)))
	framework.Must(f, err)
	f.Cleanup(func() { framework.Must(f, connection.Close()) })
	return &server{
		address: authenticator.Address("authenticator"),
		http:    &http.Client{Transport: &http.Transport{TLSClientConfig: client}, Timeout: framework.Timeout},
		envoy:   authv3.NewAuthorizationClient(connection),
	}
}

func (f *fixture) createKeys() {
	f.Helper()
	shop, elsewhere := f.env.Namespace(f), f.env.Namespace(f)
	for name, spec := range specs {
		namespace := shop
		if name == "stranger" {
			namespace = elsewhere
		}
		created := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
		framework.Must(f, f.env.Client.Create(f.Context(), created))
		k := key{namespace: namespace, name: name, app: spec.AppName, uid: string(created.UID)}
		if spec.ReadAccess {
			k.rights = append(k.rights, "read")
		}
		if spec.WriteAccess {
			k.rights = append(k.rights, "write")
		}
		if spec.ExpiresAt != nil {
			k.expiresAt = spec.ExpiresAt.Unix()
		}
		f.keys[name] = k
	}
}

func (f *fixture) awaitIssued() {
	f.Helper()
	for name, k := range f.keys {
		issued := &v1alpha1.APIKey{}
		framework.Eventually(f, name+" is issued", func() bool {
			framework.Must(f, f.env.Client.Get(f.Context(), client.ObjectKey{Namespace: k.namespace, Name: name}, issued))
			return apikey.IsIssued(issued)
		})
		k.issuedAt = issued.Status.Tokens[0].NotBefore.Unix()
		k.token = imported[name]
		if k.token == "" {
			handedOver := &corev1.Secret{}
			framework.Must(f, f.env.Client.Get(f.Context(), client.ObjectKey{Namespace: k.namespace, Name: issued.Status.SecretName}, handedOver))
			k.token = string(handedOver.Data["token"])
		}
		f.keys[name] = k
	}
}

func (f *fixture) setPlaceholders() {
	replacements := []string{
		"{shop}", f.keys["reader"].namespace,
		"{unknown}", token.New(),
		"{user:reader in Base64}", base64.StdEncoding.EncodeToString([]byte("user:" + f.keys["reader"].token)),
	}
	for name, k := range f.keys {
		replacements = append(replacements, "{"+name+"}", k.token)
	}
	f.placeholders = strings.NewReplacer(replacements...)
}

func (f *fixture) endKeys() {
	f.Helper()
	f.patch("deactivated", `{"active":false}`)
	f.patch("expired", `{"expiresAt":"2026-01-01T00:00:00Z"}`)
	framework.Must(f, f.env.Client.Delete(f.Context(), &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.keys["deleted"].namespace, Name: "deleted"},
	}))
}

// patch changes the spec of a key.
func (f *fixture) patch(name, spec string) *v1alpha1.APIKey {
	f.Helper()
	object := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: f.keys[name].namespace, Name: name}}
	framework.Must(f, f.env.Client.Patch(f.Context(), object, client.RawPatch("application/merge-patch+json", []byte(`{"spec":`+spec+`}`))))
	return object
}

// rotateKeys rotates the tokens of the keys superseded and replaced. The new token of the former is that of the key rotated.
func (f *fixture) rotateKeys() {
	f.Helper()
	rotated := f.keys["superseded"]
	rotated.token = token.New()
	f.patch("replaced", `{"tokenHash":"`+token.Hash(token.New())+`"}`)
	key := f.patch("superseded", `{"tokenHash":"`+token.Hash(rotated.token)+`"}`)
	framework.Eventually(f, "the former token is superseded", func() bool {
		framework.Must(f, f.env.Client.Get(f.Context(), client.ObjectKeyFromObject(key), key))
		return len(key.Status.Tokens) == 2 && key.Status.Tokens[1].NotAfter != nil
	})
	rotated.issuedAt = key.Status.Tokens[0].NotBefore.Unix()
	superseded := f.keys["superseded"]
	superseded.expiresAt = key.Status.Tokens[1].NotAfter.Unix()
	f.keys["rotated"], f.keys["superseded"] = rotated, superseded
	f.setPlaceholders()
	f.awaitAccepted("rotated", true)
}

// awaitAccepted waits until the authenticators accept a key, or refuse it.
func (f *fixture) awaitAccepted(name string, accepted bool) {
	f.Helper()
	for _, server := range []string{synced, with403} {
		framework.Eventually(f, name+" is accepted or refused", func() bool {
			c := f.expand(by(name, "DELETE").sentTo(server).in(f.keys[name].namespace))
			name := checkForward(f, c)
			return name != unavailable && (name != unauthenticated) == accepted
		})
	}
}

// server returns the authenticator that a check is sent to.
func (f *fixture) server(c check) *server { return f.servers[c.server] }

// expand returns the check with tokens and namespaces in place of the names in braces.
func (f *fixture) expand(c check) check {
	c.namespace, c.uri = f.placeholders.Replace(c.namespace), f.placeholders.Replace(c.uri)
	c.headers, c.tokens = f.expandAll(c.headers), f.expandAll(c.tokens)
	return c
}

func (f *fixture) expandAll(texts []string) []string {
	filled := make([]string, len(texts))
	for i, text := range texts {
		filled[i] = f.placeholders.Replace(text)
	}
	return filled
}

// header returns the client's headers.
func (c check) header() http.Header {
	header := http.Header{}
	for _, line := range c.headers {
		name, value, _ := strings.Cut(line, ":")
		header.Add(name, strings.TrimPrefix(value, " "))
	}
	return header
}

// query returns the query of the URI, with its question mark.
func (c check) query() string {
	if at := strings.Index(c.uri, "?"); at >= 0 {
		return c.uri[at:]
	}
	return ""
}

// send sends a check over HTTP/1.1.
func (s *server) send(f *fixture, method, target string, header http.Header, body string) response {
	f.Helper()
	request, err := http.NewRequestWithContext(f.Context(), method, "https://"+s.address+target, strings.NewReader(body))
	framework.Must(f, err)
	request.Header = header
	response, err := s.http.Do(request)
	framework.Must(f, err)
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	framework.Must(f, err)
	return newResponse(response.StatusCode, response.Header, string(read), int(response.ContentLength))
}

// check sends a check over gRPC, and returns the response that a client of Envoy would get.
func (s *server) check(f *fixture, namespace string, request *authv3.AttributeContext_HttpRequest) response {
	f.Helper()
	attributes := &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: request}}
	if namespace != "" {
		attributes.ContextExtensions = map[string]string{"namespace": namespace}
	}
	ctx, cancel := context.WithTimeout(f.Context(), framework.Timeout)
	defer cancel()
	response, err := s.envoy.Check(ctx, &authv3.CheckRequest{Attributes: attributes})
	framework.Must(f, err)

	if denied := response.GetDeniedResponse(); denied != nil {
		return newResponse(int(denied.GetStatus().GetCode()), set(denied.GetHeaders()), denied.GetBody(), 0)
	}
	header := set(response.GetOkResponse().GetHeaders())
	header.Set(removed, strings.Join(response.GetOkResponse().GetHeadersToRemove(), ","))
	return newResponse(http.StatusOK, header, "", 0)
}

// removed is the name of the headers to remove.
const removed = "(removed)"

// set returns the headers that replace all values from the client.
func set(options []*corev3.HeaderValueOption) http.Header {
	header := http.Header{}
	for _, option := range options {
		if option.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			header.Add(option.GetHeader().GetKey(), option.GetHeader().GetValue())
		}
	}
	return header
}

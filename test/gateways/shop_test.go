// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// shop is a namespace with keys, and the certificate of its authenticators.
type shop struct {
	*testing.T
	certificate
	env       *testenv.Env
	namespace string
	// elsewhere is the namespace of the key stranger.
	elsewhere string
	keys      map[string]key
}

// key is an issued APIKey.
type key struct {
	token, namespace string
	// id is the UID of the object.
	id string
}

// newShop creates two namespaces with keys. More names are those of keys with read access.
func newShop(t *testing.T, env *testenv.Env, more ...string) *shop {
	t.Helper()
	s := &shop{T: t, certificate: newCertificate(t), env: env, namespace: env.Namespace(t), elsewhere: env.Namespace(t)}
	s.issueKeys(more...)
	return s
}

// in returns the same shop for a subtest.
func (s *shop) in(t *testing.T) *shop {
	t.Helper()
	inTest := *s
	inTest.T = t
	return &inTest
}

// readersApp is the app name of the key reader in headers.
const readersApp = "Frontend%20f%C3%BCr%20L%C3%A4den"

// certificate is the serving certificate of an authenticator.
type certificate struct {
	certFile, keyFile string
	// caFile has the certificate of the authority that signed it.
	caFile string
}

func newCertificate(t testing.TB) certificate {
	t.Helper()
	chain, key, err := certutil.GenerateSelfSignedCertKey(proxies.AuthenticatorName, nil, []string{"localhost"})
	framework.Must(t, err)
	_, authority := pem.Decode(chain)
	dir := t.TempDir()
	c := certificate{certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key"), caFile: filepath.Join(dir, "ca.crt")}
	for file, content := range map[string][]byte{c.certFile: chain, c.keyFile: key, c.caFile: authority} {
		framework.Must(t, os.WriteFile(file, content, 0o600))
	}
	return c
}

// controllerLock is held by the test that runs a controller, because a controller reconciles all namespaces.
var controllerLock sync.Mutex

// issueKeys creates the keys reader, writer and both, and stranger in the other namespace, and returns when a controller has issued them.
// More names are those of keys with read access. No object has the key unknown.
func (s *shop) issueKeys(more ...string) {
	s.Helper()
	specs := map[string]v1alpha1.APIKeySpec{
		"reader":   {AppName: "Frontend für Läden", ReadAccess: true},
		"writer":   {AppName: "Importer", WriteAccess: true},
		"both":     {AppName: "Back office", ReadAccess: true, WriteAccess: true},
		"stranger": {AppName: "Back office", ReadAccess: true, WriteAccess: true},
	}
	for _, name := range more {
		specs[name] = v1alpha1.APIKeySpec{AppName: name, ReadAccess: true}
	}
	controllerLock.Lock()
	defer controllerLock.Unlock()
	controller := operator.StartController(s, s.env.Config)
	defer controller.Kill()
	s.keys = map[string]key{}
	for name, spec := range specs {
		namespace := s.namespace
		if name == "stranger" {
			namespace = s.elsewhere
		}
		created := &v1alpha1.APIKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
		framework.Must(s, s.env.Client.Create(s.Context(), created))
		s.keys[name] = key{namespace: namespace, id: string(created.UID)}
	}
	for name, key := range s.keys {
		issued := &v1alpha1.APIKey{}
		framework.Eventually(s, name+" is issued", func() bool {
			framework.Must(s, s.env.Client.Get(s.Context(), client.ObjectKey{Namespace: key.namespace, Name: name}, issued))
			return apikey.IsIssued(issued)
		})
		handedOver := &corev1.Secret{}
		framework.Must(s, s.env.Client.Get(s.Context(), client.ObjectKey{Namespace: key.namespace, Name: issued.Status.SecretName}, handedOver))
		key.token = string(handedOver.Data["token"])
		s.keys[name] = key
	}
	s.keys["unknown"] = key{token: token.New()}
}

// apiKey is the header line with a key.
func (s *shop) apiKey(name string) string { return "X-API-Key: " + s.keys[name].token }

// startAuthenticator starts an authenticator over TLS.
func (s *shop) startAuthenticator(config *rest.Config, flags ...string) *operator.Process {
	s.Helper()
	return operator.StartAuthenticator(s, config, append([]string{"--tls-cert-file=" + s.certFile, "--tls-private-key-file=" + s.keyFile}, flags...)...)
}

// syncedAuthenticator starts an authenticator, and returns when it is ready.
func (s *shop) syncedAuthenticator(flags ...string) *operator.Process {
	s.Helper()
	authenticator := s.startAuthenticator(s.env.Config, flags...)
	ready := process.HTTPReady("http://" + authenticator.Address("health") + "/readyz")
	framework.Eventually(s, "the authenticator is ready", func() bool { return ready(s.Context()) == nil })
	return authenticator
}

// unsyncedAuthenticator starts an authenticator that never reaches a Kubernetes API.
func (s *shop) unsyncedAuthenticator() *operator.Process {
	s.Helper()
	return s.startAuthenticator(&rest.Config{Host: "http://127.0.0.1:1"})
}

// deactivate deactivates a key with kubectl.
func (s *shop) deactivate(name string) {
	s.Helper()
	_, err := s.env.Kubectl(s, "patch", "apikey", name, "--namespace="+s.namespace, "--type=merge", `--patch={"spec":{"active":false}}`)
	framework.Must(s, err)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build overlays

package overlays_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const tenantNamespace = "shop" // has a console

// cert-manager issues the certificates of the overlays. The processes serve them, and clients verify them with ca.crt of the Secrets.
func TestCertManagerOverlays_CertManagerIssuesTheCertificates(t *testing.T) {
	t.Parallel()
	env := testenv.StartEmpty(t)
	env.InstallCertManagerCRDs(t)
	framework.Must(t, env.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenantNamespace}}))
	env.Apply(t, "", "--kustomize", configDir+"/overlays/cert-manager")
	env.Apply(t, "", "--kustomize", testenv.Kustomization(t, configDir, "namespace: "+tenantNamespace+"\nresources: [CONFIG/overlays/console-cert-manager]\n"+
		"transformers: [CONFIG/overlays/console-cert-manager/namespace]\n"))
	binaries.Start(t, process.Command{
		Path: binaries.Path(t, "cert-manager", "cert-manager"),
		Env:  []string{"KUBECONFIG=" + env.Kubeconfig(t, env.Config)},
		Log:  filepath.Join(t.TempDir(), "log"),
	})
	_, err := env.Kubectl(t, "wait", "--for=condition=Ready", "certificates", "--all", "--all-namespaces", "--timeout=60s")
	framework.Must(t, err)

	webhook := readCertificate(t, env, systemNamespace, "apikey-controller-webhook-tls")
	framework.Eventually(t, "cert-manager injects the CA bundle in the webhook configuration", func() bool {
		configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
		framework.Must(t, env.Client.Get(t.Context(), client.ObjectKey{Name: "apikeys.keys.squirrel.dev"}, configuration))
		return string(configuration.Webhooks[0].ClientConfig.CABundle) == string(webhook.ca)
	})
	controller := operator.StartController(t, env.ServiceAccount(t, systemNamespace, "apikey-controller"),
		"--webhook=true", "--webhook-listen-address="+binaries.FreeAddress(t), "--webhook-cert-dir="+webhook.dir)
	webhook.verify(t, controller.Address("webhook"), "apikey-controller-webhook.apikey-system.svc")

	serving := readCertificate(t, env, systemNamespace, "apikey-authenticator-tls")
	authenticator := operator.StartAuthenticator(t, env.ServiceAccount(t, systemNamespace, "apikey-authenticator"), serving.flags()...)
	serving.verify(t, authenticator.Address("authenticator"), "apikey-authenticator.apikey-system.svc")

	serving = readCertificate(t, env, tenantNamespace, "apikey-console-tls")
	console := operator.Start(t, env.ServiceAccount(t, tenantNamespace, "apikey-console"), append([]string{
		"console", "--namespace=" + tenantNamespace, "--api-key-file=", "--listen-address=" + operator.AnyPort,
		"--health-probe-bind-address=" + operator.AnyPort, "--metrics-bind-address=" + operator.AnyPort,
	}, serving.flags()...)...)
	serving.verify(t, console.Address("console"), "apikey-console."+tenantNamespace+".svc")
}

// certificate is a serving certificate, and the CA bundle that clients verify it with.
type certificate struct {
	dir string // has tls.crt and tls.key
	ca  []byte
}

// readCertificate writes the files of a Secret, as the kubelet does.
func readCertificate(t *testing.T, env *testenv.Env, namespace, name string) certificate {
	t.Helper()
	secret := &corev1.Secret{}
	framework.Must(t, env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, secret))
	c := certificate{dir: t.TempDir(), ca: secret.Data["ca.crt"]}
	for _, file := range []string{"tls.crt", "tls.key"} {
		framework.Must(t, os.WriteFile(filepath.Join(c.dir, file), secret.Data[file], 0o600))
	}
	return c
}

func (c certificate) flags() []string {
	return []string{"--tls-cert-file=" + filepath.Join(c.dir, "tls.crt"), "--tls-private-key-file=" + filepath.Join(c.dir, "tls.key")}
}

// verify connects to a server by a name that its certificate must have.
func (c certificate) verify(t *testing.T, address, name string) {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.ca) {
		t.Fatalf("ca.crt has no certificate: %s", c.ca)
	}
	connection, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: name})
	framework.Must(t, err)
	framework.Must(t, connection.Close())
}

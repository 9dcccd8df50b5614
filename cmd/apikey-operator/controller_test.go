// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/internal/certs"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// registerWebhook makes the API server call the admission webhook at a loopback port. As in a cluster, it uses the name of the Service and
// has no CA bundle yet.
func registerWebhook(t *testing.T, env *testenv.Env, namespace string, port int) {
	t.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "apikey-controller-webhook"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "127.0.0.1"},
	}
	if err := env.Client.Create(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("../../config/webhook/validating.yaml")
	if err != nil {
		t.Fatal(err)
	}
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := yaml.UnmarshalStrict(content, configuration); err != nil {
		t.Fatal(err)
	}
	for i := range configuration.Webhooks {
		service := configuration.Webhooks[i].ClientConfig.Service
		service.Namespace, service.Port = namespace, new(int32(port))
	}
	if err := env.Client.Create(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Client.Delete(context.Background(), configuration); err != nil {
			t.Error(err)
		}
	})
}

// createDuplicate creates a second key with the app name of the key, as a dry run, and returns the output of kubectl with its warnings.
func createDuplicate(t *testing.T, env *testenv.Env, key *v1alpha1.APIKey) string {
	t.Helper()
	manifest := fmt.Sprintf("{apiVersion: keys.squirrel.dev/v1alpha1, kind: APIKey, metadata: {name: second}, "+
		"spec: {appName: %q, readAccess: true}}", key.Spec.AppName)
	output, err := env.ControlPlane.Kubectl(t.Context(), manifest, "create", "--dry-run=server", "--filename=-", "--namespace="+key.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func freeAddress(t *testing.T) (listen string, port int) {
	t.Helper()
	port, err := controlplane.FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	return address(port), port
}

// Two replicas start on an empty cluster. The leader issues the certificates, both serve the admission webhook, the API server calls it,
// and clients of the authenticator get the CA bundle.
func TestController_IssuesCertificates(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	plain := &http.Transport{}
	var programs []*program
	var webhooks, metrics []string
	for range 2 {
		health, _ := freeAddress(t)
		metricsAddress, _ := freeAddress(t)
		webhook, port := freeAddress(t)
		if len(programs) == 0 {
			registerWebhook(t, env, namespace, port)
		}
		p := startProgram(t, "controller", "--kubeconfig="+env.Kubeconfig(t, env.Config), "--mint-certificates", "--system-namespace="+namespace,
			"--health-probe-bind-address="+health, "--metrics-bind-address="+metricsAddress, "--webhook-listen-address="+webhook)
		p.eventually("the process is ready", func() bool { status, _ := get(t, plain, "http://"+health+"/readyz"); return status == 200 })
		programs, webhooks, metrics = append(programs, p), append(webhooks, webhook), append(metrics, metricsAddress)
	}

	bundle := &corev1.ConfigMap{}
	if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: certs.BundleConfigMap}, bundle); err != nil {
		t.Fatal(err)
	}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM([]byte(bundle.Data["ca.crt"]))
	for _, webhook := range webhooks {
		config := &tls.Config{RootCAs: trust, ServerName: "apikey-controller-webhook." + namespace + ".svc"}
		connection, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", webhook)
		if err != nil {
			t.Errorf("the admission webhook at %s: %v", webhook, err)
			continue
		}
		_ = connection.Close()
	}

	_, body := get(t, plain, "http://"+metrics[0]+"/metrics")
	for _, name := range []string{"authority", "authenticator", "webhook"} {
		if !strings.Contains(body, `apikey_certificate_expiration_timestamp_seconds{certificate="`+name+`"} 1.`) {
			t.Errorf("the metrics of the leader lack the expiry of the certificate %q", name)
		}
	}

	if !strings.Contains(body, `apikey_connections{server="webhook"} `) {
		t.Error("the metrics lack the connections of the webhook")
	}

	first := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "first"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true},
	}
	if err := env.Client.Create(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	programs[0].eventually("the webhook warns of a second key of the app name", func() bool { // not before it has a certificate
		return strings.Contains(createDuplicate(t, env, first), `is held by APIKey "first"`)
	})
	for _, p := range programs {
		p.Signal(syscall.SIGTERM)
		p.assertEnds("exit status 0")
	}
}

// The alert on the expiry of certificates must fire if the controller cannot renew them.
func TestController_MeasuresCertificatesThatItCannotRenew(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	certificatePEM, keyPEM, err := cert.GenerateSelfSignedCertKey("apikey-authenticator", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]map[string][]byte{
		certs.AuthoritySecret:     {"1.crt": []byte("damaged")},
		certs.AuthenticatorSecret: {"tls.crt": certificatePEM, "tls.key": keyPEM},
	} {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "apikey-operator"}},
			Data:       data,
		}
		if err := env.Client.Create(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	health, _ := freeAddress(t)
	metricsAddress, _ := freeAddress(t)
	p := startProgram(t, "controller", "--kubeconfig="+env.Kubeconfig(t, env.Config), "--mint-certificates", "--system-namespace="+namespace,
		"--leader-elect=false", "--webhook=false", "--health-probe-bind-address="+health, "--metrics-bind-address="+metricsAddress)
	p.eventually("the metrics have the expiry of the authenticator's certificate", func() bool {
		_, body := get(t, &http.Transport{}, "http://"+metricsAddress+"/metrics")
		return strings.Contains(body, `apikey_certificate_expiration_timestamp_seconds{certificate="authenticator"} 1.`)
	})
}

func TestController_IssuesKeysAndReleasesItsLease(t *testing.T) {
	env := testenv.Shared(t)
	namespace := env.Namespace(t)
	port, certDir := env.Webhook(t, "../../config/webhook/validating.yaml")
	healthPort, err := controlplane.FreePort(0)
	if err != nil {
		t.Fatal(err)
	}
	webhook, health := address(port), address(healthPort)
	p := startProgram(t, "controller", "--kubeconfig="+env.Kubeconfig(t, env.Config), "--system-namespace="+namespace,
		"--health-probe-bind-address="+health, "--webhook-listen-address="+webhook, "--webhook-cert-dir="+certDir)
	plain := &http.Transport{}
	p.eventually("the process is ready", func() bool { status, _ := get(t, plain, "http://"+health+"/readyz"); return status == 200 })

	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "frontend"},
		Spec:       v1alpha1.APIKeySpec{AppName: "Frontend App", ReadAccess: true},
	}
	if err := env.Client.Create(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	p.eventually("the key is issued", func() bool {
		if err := env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key); err != nil {
			t.Fatal(err)
		}
		return meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)
	})
	secret := &corev1.Secret{}
	if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "frontend-token"}, secret); err != nil {
		t.Fatal(err)
	}
	p.eventually("the webhook warns of a second key of the app name", func() bool { // not before it has a certificate
		return strings.Contains(createDuplicate(t, env, key), `is held by APIKey "frontend"`)
	})

	p.Signal(syscall.SIGTERM)
	p.assertEnds("exit status 0")
	lease := &coordinationv1.Lease{}
	if err := env.Client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: leaderElectionID}, lease); err != nil {
		t.Fatal(err)
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("the lease is still held by %q", *holder)
	}
	content, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	if plaintext := secret.Data["token"]; len(plaintext) != token.Length || bytes.Contains(content, plaintext) {
		t.Errorf("the token of %d bytes is missing or in the log", len(plaintext))
	}
}

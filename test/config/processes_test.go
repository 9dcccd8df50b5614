// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// The processes run with their ServiceAccounts and under the policies: a key is created, rotated and deactivated.
func TestInvariant8_TheRolesAreSufficientForTheProcesses(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	t.Cleanup(func() { deleteCertificates(t, env) })
	port, err := controlplane.FreePort(0)
	framework.Must(t, err)
	controller := operator.StartController(t, env.ServiceAccount(t, systemNamespace, "apikey-controller"),
		"--webhook=true", fmt.Sprintf("--webhook-listen-address=127.0.0.1:%d", port), "--leader-elect=true", "--mint-certificates",
		"--system-namespace="+systemNamespace, "--console-namespaces="+tenantNamespace)
	authenticator := operator.StartAuthenticator(t, env.ServiceAccount(t, systemNamespace, "apikey-authenticator"), "--plaintext")

	key := testenv.NewKey(env.Namespace(t), "frontend")
	read := func() error { return env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key) }
	secret := &corev1.Secret{}
	readSecret := func() error {
		return env.Client.Get(t.Context(), client.ObjectKey{Namespace: key.Namespace, Name: "frontend-token"}, secret)
	}
	reasons := func() (reasons []string) {
		var events eventsv1.EventList
		g.Expect(env.Client.List(t.Context(), &events, client.InNamespace(key.Namespace))).To(Succeed())
		for _, event := range events.Items {
			reasons = append(reasons, event.Reason)
		}
		return reasons
	}
	check := func() int { return checkRead(t, authenticator, key.Namespace, string(secret.Data["token"])) }

	create(t, env.Client, key)
	g.Eventually(func() bool {
		return read() == nil && meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionActive)
	}).WithTimeout(framework.Timeout).Should(BeTrue(), "the key is issued")
	g.Expect(readSecret()).To(Succeed())
	g.Eventually(check).WithTimeout(framework.Timeout).Should(Equal(http.StatusOK))

	former := string(secret.Data["token"])
	before := client.MergeFrom(key.DeepCopy())
	key.Spec.Rotation = &v1alpha1.Rotation{Request: &v1alpha1.RotationRequest{At: metav1.Now()}}
	g.Expect(env.Client.Patch(t.Context(), key, before)).To(Succeed())
	g.Eventually(reasons).WithTimeout(framework.Timeout).Should(Equal([]string{"Rotated"}))
	g.Expect(readSecret()).To(Succeed())
	g.Expect(string(secret.Data["token"])).NotTo(Equal(former))
	g.Expect(check()).To(Equal(http.StatusOK))

	before = client.MergeFrom(key.DeepCopy())
	key.Spec.Active = new(false)
	g.Expect(env.Client.Patch(t.Context(), key, before)).To(Succeed())
	g.Eventually(check).WithTimeout(framework.Timeout).Should(Equal(http.StatusUnauthorized))
	g.Eventually(func() bool { return apierrors.IsNotFound(readSecret()) }).WithTimeout(framework.Timeout).Should(BeTrue(), "the Secret is deleted")

	g.Eventually(func() error {
		return env.Client.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: "apikey-controller-webhook-tls"}, secret)
	}).WithTimeout(framework.Timeout).Should(Succeed(), "the last certificate is issued")
	webhooks := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	g.Expect(env.Client.Get(t.Context(), client.ObjectKey{Name: "apikeys.keys.squirrel.dev"}, webhooks)).To(Succeed())
	g.Expect(webhooks.Webhooks[0].ClientConfig.CABundle).To(Equal(secret.Data["ca.crt"]))
	g.Eventually(func() error { return consoleCertificateError(t, env, tenantNamespace) }).WithTimeout(framework.Timeout).Should(Succeed())
	expectNothingForbidden(t, controller, authenticator)
}

// consoleCertificateError returns why clients of the console of a namespace cannot verify it, or nil.
func consoleCertificateError(t *testing.T, env *testenv.Env, namespace string) error {
	t.Helper()
	secret, bundle := &corev1.Secret{}, &corev1.ConfigMap{}
	if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "apikey-console-tls"}, secret); err != nil {
		return err
	}
	framework.Must(t, env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "apikey-operator-ca"}, bundle))
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	framework.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle.Data["ca.crt"]))
	for _, name := range []string{"localhost", "apikey-console." + namespace + ".svc"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			return err
		}
	}
	return nil
}

// deleteCertificates deletes the certificates that a controller has issued.
func deleteCertificates(t *testing.T, env *testenv.Env) {
	t.Helper()
	for _, name := range []string{"apikey-operator-ca", "apikey-authenticator-tls", "apikey-controller-webhook-tls"} {
		meta := metav1.ObjectMeta{Namespace: systemNamespace, Name: name}
		for _, object := range []client.Object{&corev1.Secret{ObjectMeta: meta}, &corev1.ConfigMap{ObjectMeta: meta}} {
			framework.Must(t, client.IgnoreNotFound(env.Client.Delete(context.Background(), object)))
		}
	}
	for _, object := range []client.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNamespace, Name: "apikey-console-tls"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNamespace, Name: "apikey-operator-ca"}},
	} {
		framework.Must(t, client.IgnoreNotFound(env.Client.Delete(context.Background(), object)))
	}
}

// The console creates its bootstrap key and serves all endpoints with its ServiceAccount.
func TestInvariant8_TheRoleIsSufficientForTheConsole(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	controller := operator.StartController(t, env.ServiceAccount(t, systemNamespace, "apikey-controller"))
	authenticator := operator.StartAuthenticator(t, env.ServiceAccount(t, systemNamespace, "apikey-authenticator"), "--plaintext")
	file := filepath.Join(t.TempDir(), ".api_key")
	console := operator.StartConsole(t, env.ServiceAccount(t, tenantNamespace, "apikey-console"), tenantNamespace,
		"--api-key-file="+file, "--managers=labelled")

	keys := "http://" + console.Address("console") + "/api/v1/api-keys"
	bootstrapKey := func() string {
		content, err := os.ReadFile(file)
		framework.Must(t, err)
		return strings.TrimSpace(string(content))
	}()
	var app struct{ ID, Token string }
	g.Eventually(func() int { return call(t, http.MethodGet, keys, bootstrapKey, "", nil) }).WithTimeout(framework.Timeout).Should(Equal(http.StatusOK))
	g.Expect(call(t, http.MethodPost, keys, bootstrapKey, `{"app_name": "Frontend App", "read_access": true, "write_access": false}`, &app)).To(Equal(http.StatusOK))
	g.Eventually(func() int { return checkRead(t, authenticator, tenantNamespace, app.Token) }).WithTimeout(framework.Timeout).Should(Equal(http.StatusOK))
	g.Expect(call(t, http.MethodPost, keys, bootstrapKey, `{"app_name": "Frontend App", "read_access": true, "write_access": false}`, nil)).To(Equal(http.StatusConflict))
	g.Eventually(func() (count int) {
		g.Expect(call(t, http.MethodGet, keys+"/count", bootstrapKey, "", &count)).To(Equal(http.StatusOK))
		return count
	}).WithTimeout(framework.Timeout).Should(Equal(2), "the second key is deleted again")
	g.Expect(call(t, http.MethodDelete, keys+"/"+app.ID, bootstrapKey, "", nil)).To(Equal(http.StatusOK))
	g.Expect(call(t, http.MethodGet, keys, app.Token, "", nil)).To(Equal(http.StatusUnauthorized))
	expectNothingForbidden(t, controller, authenticator, console)
}

// expectNothingForbidden expects that the API server has not refused any request of a process.
func expectNothingForbidden(t *testing.T, processes ...*operator.Process) {
	t.Helper()
	for _, process := range processes {
		if output := process.Output(); strings.Contains(output, "forbidden") {
			t.Errorf("the log of the %s:\n%s", process.Subcommand, output)
		}
	}
}

// checkRead checks a token for a read in a namespace, and returns the status of the response.
func checkRead(t *testing.T, authenticator *operator.Process, namespace, token string) int {
	t.Helper()
	return call(t, http.MethodGet, "http://"+authenticator.Address("authenticator")+"/auth/envoy/"+namespace+"/", token, "", nil)
}

// call sends a request with a key, and returns the status of the response. A payload that is not nil is decoded from a 200.
func call(t *testing.T, method, url, key, body string, payload any) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	framework.Must(t, err)
	request.Header.Set("X-API-Key", key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	framework.Must(t, err)
	defer response.Body.Close()
	if payload != nil && response.StatusCode == http.StatusOK {
		framework.Must(t, json.NewDecoder(response.Body).Decode(&struct{ Payload any }{payload}))
	}
	return response.StatusCode
}

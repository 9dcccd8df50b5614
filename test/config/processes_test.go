// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/hack/process"
	"squirrel.dev/apikey-operator/test/testenv"
)

// The real processes, each with its own ServiceAccount and under the policies, take a key through its life.
func TestInvariant8_TheRolesAreEnoughForTheProcesses(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	binary := buildOperator(t)
	controllerLog, _ := startProcess(t, env, binary, "controller", "--webhook=false", "--leader-election-namespace="+systemNamespace)
	authenticatorLog, authenticator := startProcess(t, env, binary, "authenticator", "--plaintext")

	key := newKey(env.Namespace(t), "frontend")
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
	ask := func() int { return askToRead(t, authenticator, key.Namespace, string(secret.Data["token"])) }

	create(t, env.Client, key)
	g.Eventually(func() bool {
		return read() == nil && meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionActive)
	}).WithTimeout(soon).Should(BeTrue(), "the key is issued")
	g.Expect(readSecret()).To(Succeed())
	g.Eventually(ask).WithTimeout(soon).Should(Equal(http.StatusOK))

	key.Spec.Active = new(false)
	g.Expect(env.Client.Update(t.Context(), key)).To(Succeed())
	g.Eventually(ask).WithTimeout(soon).Should(Equal(http.StatusUnauthorized))
	g.Eventually(func() bool { return apierrors.IsNotFound(readSecret()) }).WithTimeout(soon).Should(BeTrue(), "the Secret is taken away")
	g.Eventually(reasons).WithTimeout(soon).Should(ContainElements(v1alpha1.ReasonIssued, v1alpha1.ReasonDeactivated))

	for _, log := range []string{controllerLog, authenticatorLog} {
		content, err := os.ReadFile(log)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(content)).NotTo(ContainSubstring("forbidden"), log)
	}
}

// startProcess starts a process with the rights of its ServiceAccount, and returns its log and the address that it serves, if any, when
// it is ready.
func startProcess(t *testing.T, env *testenv.Env, binary, subcommand string, flags ...string) (log, address string) {
	t.Helper()
	ports := make([]int, 2)
	for i := range ports {
		var err error
		if ports[i], err = controlplane.FreePort(0); err != nil {
			t.Fatal(err)
		}
	}
	address, health := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	if subcommand == "authenticator" {
		flags = append(flags, "--listen-address="+address, "--grpc-listen-address=127.0.0.1:0", "--shutdown-delay=0")
	}
	log = filepath.Join(t.TempDir(), subcommand+".log")
	running, err := process.Start(t.Context(), process.Command{
		Path: binary,
		Args: append([]string{subcommand, "--health-probe-bind-address=" + health,
			"--kubeconfig=" + env.Kubeconfig(t, env.ServiceAccount(t, systemNamespace, "apikey-"+subcommand))}, flags...),
		Log:   log,
		Ready: process.HTTPReady("http://" + health + "/readyz"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	})
	return log, address
}

// askToRead asks the authenticator whether this token may read in a namespace, and returns the status of its answer.
func askToRead(t *testing.T, authenticator, namespace, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+authenticator+"/auth/forward/"+namespace, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Forwarded-Method", http.MethodGet)
	request.Header.Set("X-API-Key", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

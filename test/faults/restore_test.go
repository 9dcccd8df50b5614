// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// TestInvariant9_ARestoredEtcdIsFollowed restores etcd from a backup under running processes. The revision goes back by that, and so far
// no watch would hear of anything.
func TestInvariant9_ARestoredEtcdIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.Start(t))
	operator.StartController(t, w.env.Config)
	gateway := startAuthenticator(t, w.env.Config).Address("authenticator")
	console := w.startConsole(w.env.Config)
	tokens := w.issue("kept", "revoked", "before")
	backup := filepath.Join(t.TempDir(), "etcd")
	must(t, w.env.BackUpEtcd(backup))
	w.deactivate("before")
	tokens["lost"] = w.issue("lost")["lost"]
	w.awaitAnswer(gateway, tokens["before"], http.StatusUnauthorized)
	w.awaitAnswer(gateway, tokens["lost"], http.StatusOK)
	w.awaitActive(console, tokens["kept"], "App kept", "App lost", "App revoked")
	w.raiseRevision(100) // by more than what is written before all have come back
	vigil := w.keepWatch(gateway, map[string]int{tokens["kept"]: http.StatusOK})

	w.shutDownAPIServer()
	must(t, w.env.RestoreEtcd(t.Context(), backup))
	must(t, w.env.StartAPIServer(t.Context()))

	w.deactivate("revoked")
	w.awaitAnswer(gateway, tokens["revoked"], http.StatusUnauthorized)
	w.awaitAnswer(gateway, tokens["before"], http.StatusOK)
	w.awaitAnswer(gateway, tokens["lost"], http.StatusUnauthorized)
	w.awaitActive(console, tokens["before"], "App before", "App kept")
	w.awaitAnswer(gateway, w.issue("later")["later"], http.StatusOK)
	vigil.end()
}

// shutDownAPIServer lets the API server send its clients away, as it does when it is upgraded, before it ends.
func (w *world) shutDownAPIServer() {
	w.Helper()
	for _, process := range w.env.Processes() {
		if process.Name() == "kube-apiserver" {
			process.Signal(syscall.SIGTERM)
		}
	}
	eventually(w.T, "the API server accepts no connection", func() bool {
		connection, err := net.Dial("tcp", strings.TrimPrefix(w.env.Config.Host, "https://"))
		if err == nil {
			_ = connection.Close()
		}
		return err != nil
	})
	w.env.StopAPIServer()
}

// raiseRevision writes objects that are no keys.
func (w *world) raiseRevision(by int) {
	w.Helper()
	for range by {
		must(w.T, w.env.Client.Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, GenerateName: "c-"}}))
	}
}

// startConsole runs a console of the namespace, and returns where it serves.
func (w *world) startConsole(config *rest.Config) (console string) {
	w.Helper()
	return operator.Start(w.T, config, "console", "--plaintext", "--namespace="+w.namespace, "--api-key-file=",
		"--listen-address="+operator.AnyPort, "--health-probe-bind-address="+operator.AnyPort, "--metrics-bind-address="+operator.AnyPort,
	).Address("console")
}

// awaitActive waits until a console accepts a token, and lists these app names as active.
func (w *world) awaitActive(console, token string, appNames ...string) {
	w.Helper()
	eventually(w.T, "the console knows what is active", func() bool {
		status, found, err := active(console, token)
		must(w.T, err)
		return status == http.StatusOK && slices.Equal(found, appNames)
	})
}

// active asks a console which app names are active, and returns them in their order, and the status of the answer.
func active(console, token string) (status int, appNames []string, err error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+console+"/api/v1/api-keys?active_only=true", nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("X-API-Key", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Payload []struct {
			AppName string `json:"app_name"`
		}
	}
	err = json.NewDecoder(response.Body).Decode(&answer)
	for _, key := range answer.Payload {
		appNames = append(appNames, key.AppName)
	}
	slices.Sort(appNames)
	return response.StatusCode, appNames, err
}

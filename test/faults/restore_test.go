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

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// TestInvariant9_ARestoredEtcdIsFollowed restores etcd from a backup under running processes. The revision goes back by that, and so far
// no watch would hear of anything.
func TestInvariant9_ARestoredEtcdIsFollowed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testenv.Start(t))
	operator.StartController(t, f.Env.Config)
	gateway := startAuthenticator(t, f.Env.Config).Address("authenticator")
	console := f.startConsole(f.Env.Config)
	tokens := f.issue("kept", "revoked", "before")
	backup := filepath.Join(t.TempDir(), "etcd")
	framework.Must(t, f.Env.BackUpEtcd(backup))
	f.deactivate("before")
	tokens["lost"] = f.issue("lost")["lost"]
	f.awaitAnswer(gateway, tokens["before"], http.StatusUnauthorized)
	f.awaitAnswer(gateway, tokens["lost"], http.StatusOK)
	f.awaitActive(console, tokens["kept"], "App kept", "App lost", "App revoked")
	f.raiseRevision(100) // by more than what is written before all have come back
	vigil := f.keepWatch(gateway, map[string]int{tokens["kept"]: http.StatusOK})

	f.shutDownAPIServer()
	framework.Must(t, f.Env.RestoreEtcd(t.Context(), backup))
	framework.Must(t, f.Env.StartAPIServer(t.Context()))

	f.deactivate("revoked")
	f.awaitAnswer(gateway, tokens["revoked"], http.StatusUnauthorized)
	f.awaitAnswer(gateway, tokens["before"], http.StatusOK)
	f.awaitAnswer(gateway, tokens["lost"], http.StatusUnauthorized)
	f.awaitActive(console, tokens["before"], "App before", "App kept")
	f.awaitAnswer(gateway, f.issue("later")["later"], http.StatusOK)
	vigil.end()
}

// shutDownAPIServer lets the API server send its clients away, as it does when it is upgraded, before it ends.
func (f *fixture) shutDownAPIServer() {
	f.Helper()
	for _, process := range f.Env.Processes() {
		if process.Name() == "kube-apiserver" {
			process.Signal(syscall.SIGTERM)
		}
	}
	framework.Eventually(f, "the API server accepts no connection", func() bool {
		connection, err := net.Dial("tcp", strings.TrimPrefix(f.Env.Config.Host, "https://"))
		if err == nil {
			_ = connection.Close()
		}
		return err != nil
	})
	f.Env.StopAPIServer()
}

// raiseRevision writes objects that are no keys.
func (f *fixture) raiseRevision(by int) {
	f.Helper()
	for range by {
		framework.Must(f, f.Env.Client.Create(f.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, GenerateName: "c-"}}))
	}
}

// startConsole runs a console of the namespace, and returns where it serves.
func (f *fixture) startConsole(config *rest.Config) (console string) {
	f.Helper()
	return operator.Start(f, config, "console", "--plaintext", "--namespace="+f.Namespace, "--api-key-file=",
		"--listen-address="+operator.AnyPort, "--health-probe-bind-address="+operator.AnyPort, "--metrics-bind-address="+operator.AnyPort,
	).Address("console")
}

// awaitActive waits until a console accepts a token, and lists these app names as active.
func (f *fixture) awaitActive(console, token string, appNames ...string) {
	f.Helper()
	framework.Eventually(f, "the console knows what is active", func() bool {
		status, found, err := active(console, token)
		framework.Must(f, err)
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

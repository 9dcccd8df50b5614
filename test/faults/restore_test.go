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
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// TestInvariant9_ProcessesRelistAfterEtcdIsRestored restores etcd from a backup while the processes run. That decreases the revision, and
// a watch from a later revision gets no events.
func TestInvariant9_ProcessesRelistAfterEtcdIsRestored(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testenv.Start(t))
	operator.StartController(t, f.Env.Config)
	gateway := startAuthenticator(t, f.Env.Config).Address("authenticator")
	console := operator.StartConsole(t, f.Env.Config, f.Namespace).Address("console")
	tokens := f.issue("kept", "revoked", "before", "rotating")
	f.requestRotation("rotating", time.Hour)
	framework.Eventually(t, "the rotation has begun", func() bool { return apikey.ClaimOf(f.GetKey("rotating")) != nil })
	backup := filepath.Join(t.TempDir(), "etcd")
	framework.Must(t, f.Env.BackUpEtcd(backup))
	tokens["rotated"] = f.awaitRotation("rotating", tokens["rotating"])
	f.deactivate("before")
	tokens["lost"] = f.issue("lost")["lost"]
	f.awaitStatus(gateway, tokens["before"], http.StatusUnauthorized)
	f.awaitStatus(gateway, tokens["lost"], http.StatusOK)
	f.awaitActive(console, tokens["kept"], "App kept", "App lost", "App revoked", "App rotating")
	f.raiseRevision(100) // more than the processes write before they have reconnected
	poller := f.startPolling(gateway, map[string]int{
		tokens["kept"]: http.StatusOK, tokens["rotating"]: http.StatusOK, tokens["rotated"]: http.StatusOK,
	})

	f.shutDownAPIServer()
	framework.Must(t, f.Env.RestoreEtcd(t.Context(), backup))
	framework.Must(t, f.Env.StartAPIServer(t.Context()))

	f.deactivate("revoked")
	f.awaitStatus(gateway, tokens["revoked"], http.StatusUnauthorized)
	f.awaitStatus(gateway, tokens["before"], http.StatusOK)
	f.awaitStatus(gateway, tokens["lost"], http.StatusUnauthorized)
	f.awaitActive(console, tokens["before"], "App before", "App kept", "App rotating")
	f.awaitStatus(gateway, f.issue("later")["later"], http.StatusOK)

	// The backup has the claim of the rotation, and the Secret with the former token.
	again := f.awaitRotation("rotating", tokens["rotating"])
	f.awaitStatus(gateway, again, http.StatusOK)
	if again == tokens["rotated"] {
		t.Error("the token of the restored claim is the newest one, although its Secret is lost")
	}
	framework.Eventually(t, "an event reports the second token", func() bool { return slices.Contains(f.eventsOf("rotating"), "Reissued") })
	poller.stop()
}

// awaitRotation waits until a key has another token than the former one, and returns it.
func (f *fixture) awaitRotation(name, former string) string {
	f.Helper()
	framework.EventuallyWithin(f, takeover, framework.PollInterval, name+" is rotated", func() bool {
		key := f.GetKey(name)
		return apikey.ClaimOf(key) == nil && apikey.NewestToken(key).Hash != token.Hash(former)
	})
	return f.tokenFrom(name+"-token", "token")
}

// eventsOf returns the reasons of the events of a key.
func (f *fixture) eventsOf(name string) (reasons []string) {
	f.Helper()
	events := &eventsv1.EventList{}
	framework.Must(f, f.Env.Client.List(f.Context(), events, client.InNamespace(f.Namespace)))
	for i := range events.Items {
		if events.Items[i].Regarding.Name == name {
			reasons = append(reasons, events.Items[i].Reason)
		}
	}
	return reasons
}

// shutDownAPIServer stops the API server gracefully, as an upgrade does: it closes the connections of its clients first.
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

// raiseRevision raises the revision of etcd by creating ConfigMaps.
func (f *fixture) raiseRevision(by int) {
	f.Helper()
	for range by {
		f.Create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, GenerateName: "c-"}})
	}
}

// awaitActive waits until a console accepts a token, and lists these app names as active.
func (f *fixture) awaitActive(console, token string, appNames ...string) {
	f.Helper()
	framework.Eventually(f, "the console lists the active keys", func() bool {
		status, found, err := listActive(console, token)
		framework.Must(f, err)
		return status == http.StatusOK && slices.Equal(found, appNames)
	})
}

// listActive requests the active keys from a console, and returns their app names, sorted, and the status of the response.
func listActive(console, token string) (status int, appNames []string, err error) {
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
	var body struct {
		Payload []struct {
			AppName string `json:"app_name"`
		}
	}
	err = json.NewDecoder(response.Body).Decode(&body)
	for _, key := range body.Payload {
		appNames = append(appNames, key.AppName)
	}
	slices.Sort(appNames)
	return response.StatusCode, appNames, err
}

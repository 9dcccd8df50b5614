// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// The processes run with their ServiceAccounts.
func TestInvariant8_OnlyTheControllerReadsTheLastUsesOfTokens(t *testing.T) {
	env := installed(t)
	f := testenv.NewFixture(t, env)
	authenticator := operator.StartAuthenticator(t, env.ServiceAccount(t, systemNamespace, "apikey-authenticator"), "--plaintext",
		"--usage-listen-address="+operator.AnyPort, "--usage-reader="+systemNamespace+"/apikey-controller")
	controllerConfig := env.ServiceAccount(t, systemNamespace, "apikey-controller")
	issuing := operator.StartController(t, controllerConfig, "--system-namespace="+systemNamespace)
	f.CreateKey("used")
	f.CreateKey("unused")
	f.WaitForReady("used", v1alpha1.ReasonIssued)
	f.WaitForReady("unused", v1alpha1.ReasonIssued)
	issuing.Kill()
	token := string(f.Secret("used-token").Data["token"])
	framework.Eventually(t, "the token is accepted", func() bool { return checkRead(t, authenticator, f.Namespace, token) == http.StatusOK })

	report := "http://" + authenticator.Address("usage") + "/usage"
	const controller, other, audience = "apikey-controller", "apikey-authenticator", "apikey-usage"
	bearer := requestToken(t, env, controller, audience)
	for _, caller := range []struct {
		name, method, query, authorization string
		want                               int
	}{
		{"no token", http.MethodGet, "", "", http.StatusUnauthorized},
		{"another scheme", http.MethodGet, "", "Basic " + bearer, http.StatusUnauthorized},
		{"an API key", http.MethodGet, "", "Bearer " + token, http.StatusUnauthorized},
		{"the controller's token for the Kubernetes API", http.MethodGet, "", "Bearer " + controllerConfig.BearerToken, http.StatusUnauthorized},
		{"another ServiceAccount", http.MethodGet, "", "Bearer " + requestToken(t, env, other, audience), http.StatusForbidden},
		{"a forged signature", http.MethodGet, "", "Bearer " + bearer[:len(bearer)-8] + "AAAAAAAA", http.StatusUnauthorized},
		{"the controller", http.MethodGet, "", "Bearer " + bearer, http.StatusOK},
		{"the controller again", http.MethodGet, "?within=2", "Bearer " + bearer, http.StatusOK},
		{"a wrong parameter", http.MethodGet, "?within=-1", "Bearer " + bearer, http.StatusBadRequest},
		{"another method", http.MethodPost, "", "Bearer " + bearer, http.StatusMethodNotAllowed},
	} {
		request, err := http.NewRequestWithContext(t.Context(), caller.method, report+caller.query, http.NoBody)
		framework.Must(t, err)
		request.Header.Set("Authorization", caller.authorization)
		response, err := http.DefaultClient.Do(request)
		framework.Must(t, err)
		framework.Must(t, response.Body.Close())
		if response.StatusCode != caller.want {
			t.Errorf("%s: got the status %d, want %d", caller.name, response.StatusCode, caller.want)
		}
	}

	tokenFile := filepath.Join(t.TempDir(), "token")
	framework.Must(t, os.WriteFile(tokenFile, []byte(bearer), 0o600))
	collecting := operator.StartController(t, controllerConfig, "--system-namespace="+systemNamespace,
		"--usage-endpoints=http://"+authenticator.Address("usage"), "--usage-token-file="+tokenFile)
	var used *metav1.Time
	framework.Eventually(t, "the last use is recorded", func() bool {
		used = f.GetKey("used").Status.Tokens[0].LastUsedAt
		return used != nil
	})
	if age := time.Since(used.Time); age < 0 || age > 2*time.Minute {
		t.Errorf("the last use is %s ago", age)
	}
	if unused := f.GetKey("unused").Status.Tokens[0].LastUsedAt; unused != nil {
		t.Errorf("the token that was not used has the last use %s", unused)
	}
	expectNothingForbidden(t, authenticator, issuing, collecting)
}

// requestToken returns a token of a ServiceAccount for an audience.
func requestToken(t *testing.T, env *testenv.Env, account, audience string) string {
	t.Helper()
	token, err := env.ControlPlane.ServiceAccountToken(t.Context(), systemNamespace, account, audience)
	framework.Must(t, err)
	return token
}

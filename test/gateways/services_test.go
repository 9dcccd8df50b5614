// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/proxies"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// caller is a service that runs the commands of its page.
type caller struct {
	*shop
	// dir has ca.crt, and the address of the authenticator for curl.
	dir string
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	a := &caller{shop: newShop(t, testenv.Shared(t)), dir: t.TempDir()}
	address := a.syncedAuthenticator().Address("authenticator")
	framework.Must(a, os.Symlink(a.caFile, filepath.Join(a.dir, "ca.crt")))
	settings := fmt.Sprintf("silent\nshow-error\nhttp1.1\nconnect-to = %s:443:%s\n", proxies.AuthenticatorName, address)
	framework.Must(a, os.WriteFile(filepath.Join(a.dir, ".curlrc"), []byte(settings), 0o600))
	return a
}

// run runs a command of the page with the token of a client's key, and returns its output.
func (a *caller) run(name, clientsKey string) string {
	a.Helper()
	commands := docsnippets.CodeBlock(a, "services.md", "keys") + docsnippets.CodeBlock(a, "services.md", name)
	command := exec.CommandContext(a.Context(), "bash", "-euc", strings.ReplaceAll(commands, "/shop", "/"+a.namespace))
	command.Dir = a.dir
	command.Env = append(os.Environ(), "CURL_HOME="+a.dir, binaries.DebianLibraryPath(a), "PATH="+filepath.Dir(binaries.Path(a, "debian", "usr", "bin", "curl")),
		"MY_KEY="+a.keys["both"].token, "CLIENTS_KEY="+a.keys[clientsKey].token)
	output, err := command.CombinedOutput()
	if err != nil {
		a.Fatalf("%v\n%s", err, output)
	}
	return string(output)
}

func TestServices_CheckKeysOverHTTP(t *testing.T) {
	t.Parallel()
	a := newCaller(t)
	reader := a.keys["reader"]

	var active map[string]any
	framework.Must(a, json.Unmarshal([]byte(a.run("introspection", "reader")), &active))
	delete(active, "iat")
	want := map[string]any{
		"active": true, "scope": "read", "client_id": readersApp, "token_type": "Bearer", "sub": reader.id, "iss": "keys.squirrel.dev/" + a.namespace,
	}
	if diff := cmp.Diff(want, active); diff != "" {
		t.Errorf("introspection (-want +got):\n%s", diff)
	}
	if got := a.run("introspection", "stranger"); got != `{"active":false}` {
		t.Errorf("the introspection of a key of another namespace returns %s", got)
	}

	for key, want := range map[string][]string{
		"reader":  {"apikeys", "apikeys:" + a.namespace, "apikeys:" + a.namespace + ":read"},
		"unknown": nil,
	} {
		var review authenticationv1.TokenReview
		framework.Must(a, json.Unmarshal([]byte(a.run("TokenReview", key)), &review))
		if diff := cmp.Diff(want, review.Status.User.Groups); diff != "" || review.Status.Authenticated != (want != nil) {
			t.Errorf("the review of the key %s: authenticated is %t, groups (-want +got):\n%s", key, review.Status.Authenticated, diff)
		}
	}

	for key, want := range map[string]int{"reader": http.StatusOK, "writer": http.StatusUnauthorized} {
		response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(a.run("as a gateway", key))), nil)
		framework.Must(a, err)
		defer response.Body.Close()
		if response.StatusCode != want || (want == http.StatusOK) != (response.Header.Get("X-Auth-Key-Id") == a.keys[key].id) {
			t.Errorf("as a gateway, with the key %s, the response is %s %v", key, response.Status, response.Header)
		}
	}
}

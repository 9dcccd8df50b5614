// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
)

func TestGateway_AcceptsTheKeyInTheSecret(t *testing.T) {
	shared.install(t)
	shared.tenant(t).expectProtected(t)
}

func TestTask_ProtectAService(t *testing.T) {
	shared.install(t)
	dir := t.TempDir()
	framework.Must(t, os.Symlink(shared.client.Program, filepath.Join(dir, "kubectl")))
	t.Cleanup(func() { shared.kubectl(t, "", "delete", "namespace", "shop", "--ignore-not-found", "--wait=false") })
	docsnippets.Walkthrough{
		Page: "docs/tasks/protect-a-service.md",
		Dir:  dir,
		Env:  []string{"KUBECONFIG=" + shared.kubeconfig, "PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH")},
		Replacements: map[string]string{ // the test's image has another entrypoint
			"image: docker.io/library/caddy:2": "image: " + shared.gateway + "\n        args: [run, --config=/etc/caddy/Caddyfile]",
		},
	}.Run(t)
}

// expectProtected expects that the key of the client may read but not write, and that requests with an unknown or no key are denied.
func (n *tenant) expectProtected(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	key := n.keys(t)["client"]

	status, received, _ := strings.Cut(n.send(t, http.MethodGet, "valid"), " ")
	g.Expect(status).To(Equal("200"), received)
	header := http.Header{}
	g.Expect(json.Unmarshal([]byte(received), &header)).To(Succeed())
	g.Expect(header).To(And(
		HaveKeyWithValue("X-Auth-App", []string{"Client%20App"}),
		HaveKeyWithValue("X-Auth-Namespace", []string{n.namespace}),
		HaveKeyWithValue("X-Auth-Key-Id", []string{string(key.UID)}),
		HaveKeyWithValue("X-Auth-Access", []string{"read"}),
		Not(HaveKey("X-Api-Key")),
		Not(HaveKey("Authorization")),
	))
	g.Expect(received).NotTo(ContainSubstring("THE KEY"))

	refused := `401 {"errorCode":401,"errorMessage":"A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.","payload":null}`
	g.Expect(n.send(t, http.MethodGet, "none")).To(Equal(refused))
	g.Expect(n.send(t, http.MethodGet, "unknown")).To(Equal(refused))
	g.Expect(n.send(t, http.MethodPost, "valid")).To(Equal(strings.ReplaceAll(refused, "A valid API key is required: send it in the X-API-Key header, or as Authorization: Bearer.", "API key does not have write access")))
}

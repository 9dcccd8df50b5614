// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build gateways

package gateways_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/binaries"
	"squirrel.dev/apikey-operator/test/framework/docsnippets"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const apiServerPage = "kube-apiserver.md"

// cluster is a shop with an API server that sends unknown tokens to an authenticator.
type cluster struct {
	*shop
	authenticator *operator.Process
	// kubeconfig has the API server, and no user.
	kubeconfig string
}

// newCluster starts a control plane with the flags of the page.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	const namespace = "shop"
	certificate, address := newCertificate(t), binaries.FreeAddress(t)
	webhook := filepath.Join(t.TempDir(), "webhook.yaml")
	configure(t, webhook, docsnippets.CodeBlock(t, apiServerPage, "/etc/kubernetes/apikeys/webhook.yaml"), map[string]string{
		"10.96.0.50:443":                 address,
		"/etc/kubernetes/apikeys/ca.crt": certificate.caFile,
	})
	flags := strings.ReplaceAll(docsnippets.CodeBlock(t, apiServerPage, "flags of kube-apiserver"), "/etc/kubernetes/apikeys/webhook.yaml", webhook)
	env := testenv.Start(t, strings.Split(strings.TrimSpace(flags), "\n")[1:]...)

	c := &cluster{shop: &shop{T: t, certificate: certificate, env: env, namespace: namespace, elsewhere: env.Namespace(t)}}
	framework.Must(c, env.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	c.issueKeys("retired")
	c.authenticator = c.syncedAuthenticator("--listen-address=" + address)
	c.kubeconfig = env.Kubeconfig(t, rest.AnonymousClientConfig(env.Config))

	rbac := filepath.Join(t.TempDir(), "rbac.yaml")
	framework.Must(c, os.WriteFile(rbac, []byte(docsnippets.CodeBlock(t, apiServerPage, "rbac.yaml")), 0o600))
	_, err := env.Kubectl(t, "apply", "--filename="+rbac)
	framework.Must(c, err)
	return c
}

// as runs kubectl with a key, and returns its output, including errors.
func (c *cluster) as(key string, args ...string) string {
	output, _ := c.env.Kubectl(c, append(args, "--kubeconfig="+c.kubeconfig, "--token="+c.keys[key].token)...)
	return output
}

func TestKubeAPIServer_RBACGrantsAccessToGroupsOfKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t)

	t.Run("the user is the key", func(t *testing.T) {
		var review authenticationv1.SelfSubjectReview
		framework.Must(t, json.Unmarshal([]byte(c.as("reader", "auth", "whoami", "--output=json")), &review))
		want := authenticationv1.UserInfo{
			Username: "apikey:shop:reader",
			UID:      c.keys["reader"].id,
			Groups:   []string{"apikeys", "apikeys:shop", "apikeys:shop:read", "system:authenticated"},
			Extra:    map[string]authenticationv1.ExtraValue{"keys.squirrel.dev/app-name": {"Frontend für Läden"}},
		}
		if diff := cmp.Diff(want, review.Status.UserInfo); diff != "" {
			t.Errorf("the user differs (-want +got):\n%s", diff)
		}
	})

	t.Run("the commands of the page use the key", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "key.token")
		framework.Must(t, os.WriteFile(file, []byte(c.keys["reader"].token), 0o600))
		var output string
		for command := range strings.Lines(docsnippets.CodeBlock(t, apiServerPage, "kubectl with a key")) {
			if args, ok := strings.CutPrefix(strings.ReplaceAll(command, `"$PWD/key.token"`, file), "kubectl "); ok {
				printed, err := c.env.Kubectl(t, append(strings.Fields(args), "--kubeconfig="+c.kubeconfig)...)
				framework.Must(t, err)
				output += printed
			}
		}
		if !strings.Contains(output, "apikey:shop:reader") {
			t.Errorf("the commands print\n%s", output)
		}
	})

	const (
		forbidden    = "Error from server (Forbidden): "
		unauthorized = "error: You must be logged in to the server (Unauthorized)\n"
	)
	list := []string{"get", "configmaps", "--namespace=shop", "--output=name", "--field-selector=metadata.name=settings"}
	for _, test := range []struct {
		name, key string
		args      []string
		want      string
	}{
		{"write access allows create", "writer", []string{"create", "configmap", "settings", "--namespace=shop"}, "configmap/settings created\n"},
		{"read access allows get", "reader", list, "configmap/settings\n"},
		{"both accesses allow get", "both", list, "configmap/settings\n"},
		{"read access does not allow create", "reader", []string{"create", "configmap", "other", "--namespace=shop"},
			`error: failed to create configmap: configmaps is forbidden: User "apikey:shop:reader" cannot create resource "configmaps" in API group "" in the namespace "shop"` + "\n"},
		{"write access does not allow get", "writer", list,
			forbidden + `configmaps "settings" is forbidden: User "apikey:shop:writer" cannot list resource "configmaps" in API group "" in the namespace "shop"` + "\n"},
		{"no other resource of the namespace", "both", []string{"get", "secrets", "--namespace=shop"},
			forbidden + `secrets is forbidden: User "apikey:shop:both" cannot list resource "secrets" in API group "" in the namespace "shop"` + "\n"},
		{"no resource of another namespace", "both", []string{"get", "configmaps", "--namespace=" + c.elsewhere},
			forbidden + `configmaps is forbidden: User "apikey:shop:both" cannot list resource "configmaps" in API group "" in the namespace "` + c.elsewhere + "\"\n"},
		{"a key of another namespace is unauthorized", "stranger", list, unauthorized},
		{"an unknown key is unauthorized", "unknown", list, unauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := c.as(test.key, test.args...); got != test.want {
				t.Errorf("the output of kubectl is\n%swant\n%s", got, test.want)
			}
		})
	}

	// The API server refuses a deactivated key when the cached response expires.
	if got := c.as("retired", list...); got != "configmap/settings\n" {
		t.Errorf("with the key to be deactivated, the output of kubectl is %s", got)
	}
	c.deactivate("retired")
	framework.Eventually(c, "the deactivated key is refused", func() bool { return c.as("retired", list...) == unauthorized })

	// Without an authenticator, keys are refused, and other credentials are not.
	c.authenticator.Kill()
	framework.Eventually(c, "a valid key is refused without an authenticator", func() bool { return c.as("both", list...) == unauthorized })
	_, err := c.env.Kubectl(t, list...)
	framework.Must(c, err)
}

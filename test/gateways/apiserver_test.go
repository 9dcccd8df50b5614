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

// cluster is a shop whose API server asks an authenticator about the tokens that it does not know itself.
type cluster struct {
	*shop
	asked *operator.Process
	// kubeconfig knows the API server, and nobody who may use it.
	kubeconfig string
}

// newCluster starts a control plane whose API server has the flags that its page shows.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	const namespace = "shop"
	certificate, address := newCertificate(t), binaries.FreeAddress(t)
	webhook := filepath.Join(t.TempDir(), "webhook.yaml")
	configure(t, webhook, docsnippets.Shown(t, apiServerPage, "/etc/kubernetes/apikeys/webhook.yaml"), map[string]string{
		"10.96.0.50:443":                 address,
		"/etc/kubernetes/apikeys/ca.crt": certificate.caFile,
	})
	flags := strings.ReplaceAll(docsnippets.Shown(t, apiServerPage, "flags of kube-apiserver"), "/etc/kubernetes/apikeys/webhook.yaml", webhook)
	env := testenv.Start(t, strings.Split(strings.TrimSpace(flags), "\n")[1:]...)

	c := &cluster{shop: &shop{T: t, certificate: certificate, env: env, namespace: namespace, elsewhere: env.Namespace(t)}}
	framework.Must(c, env.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	c.issueKeys("retired")
	c.asked = c.syncedAuthenticator("--listen-address=" + address)
	c.kubeconfig = env.Kubeconfig(t, rest.AnonymousClientConfig(env.Config))

	rbac := filepath.Join(t.TempDir(), "rbac.yaml")
	framework.Must(c, os.WriteFile(rbac, []byte(docsnippets.Shown(t, apiServerPage, "rbac.yaml")), 0o600))
	_, err := env.Kubectl(t, "apply", "--filename="+rbac)
	framework.Must(c, err)
	return c
}

// as runs kubectl with a key, and returns what it says, errors too.
func (c *cluster) as(key string, args ...string) string {
	output, _ := c.env.Kubectl(c, append(args, "--kubeconfig="+c.kubeconfig, "--token="+c.keys[key].token)...)
	return output
}

func TestKubernetesLetsKeysDoWhatRBACGrantsTheirGroups(t *testing.T) {
	t.Parallel()
	c := newCluster(t)

	t.Run("it knows who asks", func(t *testing.T) {
		var review authenticationv1.SelfSubjectReview
		framework.Must(t, json.Unmarshal([]byte(c.as("reader", "auth", "whoami", "--output=json")), &review))
		want := authenticationv1.UserInfo{
			Username: "apikey:shop:reader",
			UID:      c.keys["reader"].id,
			Groups:   []string{"apikeys", "apikeys:shop", "apikeys:shop:read", "system:authenticated"},
			Extra:    map[string]authenticationv1.ExtraValue{"keys.squirrel.dev/app-name": {"Frontend für Läden"}},
		}
		if diff := cmp.Diff(want, review.Status.UserInfo); diff != "" {
			t.Errorf("it is (-want +got):\n%s", diff)
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
		{"a key that may write writes", "writer", []string{"create", "configmap", "settings", "--namespace=shop"}, "configmap/settings created\n"},
		{"a key that may read reads", "reader", list, "configmap/settings\n"},
		{"a key that may do both reads", "both", list, "configmap/settings\n"},
		{"a key that may read does not write", "reader", []string{"create", "configmap", "other", "--namespace=shop"},
			`error: failed to create configmap: configmaps is forbidden: User "apikey:shop:reader" cannot create resource "configmaps" in API group "" in the namespace "shop"` + "\n"},
		{"a key that may write does not read", "writer", list,
			forbidden + `configmaps "settings" is forbidden: User "apikey:shop:writer" cannot list resource "configmaps" in API group "" in the namespace "shop"` + "\n"},
		{"nothing else in its namespace", "both", []string{"get", "secrets", "--namespace=shop"},
			forbidden + `secrets is forbidden: User "apikey:shop:both" cannot list resource "secrets" in API group "" in the namespace "shop"` + "\n"},
		{"nothing in another namespace", "both", []string{"get", "configmaps", "--namespace=" + c.elsewhere},
			forbidden + `configmaps is forbidden: User "apikey:shop:both" cannot list resource "configmaps" in API group "" in the namespace "` + c.elsewhere + "\"\n"},
		{"a key of another namespace is nobody", "stranger", list, unauthorized},
		{"an unknown key is nobody", "unknown", list, unauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := c.as(test.key, test.args...); got != test.want {
				t.Errorf("kubectl says\n%swant\n%s", got, test.want)
			}
		})
	}

	// A key that is deactivated is refused once what the API server remembers is over.
	if got := c.as("retired", list...); got != "configmap/settings\n" {
		t.Errorf("with the key that will be deactivated kubectl says %s", got)
	}
	c.deactivate("retired")
	framework.Eventually(c, "the deactivated key is refused", func() bool { return c.as("retired", list...) == unauthorized })

	// Without an authenticator nobody passes by a key, and others do.
	c.asked.Kill()
	framework.Eventually(c, "a good key is refused while nobody can be asked", func() bool { return c.as("both", list...) == unauthorized })
	_, err := c.env.Kubectl(t, list...)
	framework.Must(c, err)
}

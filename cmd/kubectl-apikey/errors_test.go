// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestFailures(t *testing.T) {
	terminal := newTerminal(t)
	terminal.types("create", "\tFrontend", "-r")
	terminal.types("create", "Frontend App", "-r", "-n", "no-such-namespace")
	terminal.types("create", "Frontend App", "-r", "--timeout=2s")
	if keys := terminal.keys(); len(keys) != 0 {
		t.Errorf("the keys are %v", keys)
	}
	// The same response as from a cluster without the CustomResourceDefinition.
	terminal.types("list", "--server="+terminal.env.Config.Host+"/nowhere")
	terminal.types("create", "Frontend App", "-r", "--server="+terminal.env.Config.Host+"/nowhere")
	terminal.types("reveal", "partner", "--server="+terminal.env.Config.Host+"/nowhere")
	terminal.types("list", "--server=https://127.0.0.1:1")
	terminal.types("list", "--context=nowhere")
	anonymous := rest.AnonymousClientConfig(terminal.env.Config)
	anonymous.BearerToken = "not a token"
	terminal.logIn(anonymous)
	terminal.types("list")
	terminal.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	terminal.types("list")
	terminal.types("list", "--kubeconfig=no-such-file")
	terminal.assertGolden()
}

func TestFailures_NameTheMissingRole(t *testing.T) {
	terminal := newTerminalWithController(t)
	terminal.apply("partner")
	terminal.awaitReason("partner", v1alpha1.ReasonIssued)
	terminal.logIn(terminal.env.User(t, "jane"))
	terminal.types("list")
	terminal.allow("jane", "get", "list")
	terminal.types("count")
	terminal.types("create", "Frontend App", "-r")
	terminal.types("deactivate", "partner")
	terminal.types("reveal", "partner")
	terminal.assertGolden()
}

// allow grants a user these verbs for the keys of the namespace.
func (t *terminal) allow(user string, verbs ...string) {
	t.Helper()
	metadata := metav1.ObjectMeta{Namespace: t.namespace, Name: user}
	framework.Must(t, t.env.Client.Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metadata,
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"apikeys"}, Verbs: verbs}},
	}))
	framework.Must(t, t.env.Client.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metadata,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}))
	framework.Eventually(t, "the user has the permission", func() bool { return t.run("list").code == 0 })
}

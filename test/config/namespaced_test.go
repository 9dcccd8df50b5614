// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testcache"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// A cluster administrator applies config/overlays/cluster. Then a user with the role admin in two namespaces installs the processes there,
// with a console, and they issue and check keys.
func TestInvariant8_ATeamInstallsTheProcessesInItsNamespacesWithoutPermissionsForTheCluster(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	framework.Must(t, testcache.DependOn("config"))
	env := testenv.Start(t)
	const shop, staging, elsewhere = "shop", "shop-staging", "elsewhere"
	for _, namespace := range []string{shop, staging, elsewhere} {
		create(t, env.Client, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	}
	_, err := env.Kubectl(t, "apply", "--server-side", "--force-conflicts", "--kustomize", configDir+"/overlays/cluster")
	framework.Must(t, err)
	team := newTeam(t, env, shop, staging)
	team.apply("namespace: " + shop + "\nresources: [CONFIG/overlays/namespaced]\n")
	team.apply("namespace: " + staging + `
resources: [CONFIG/overlays/namespaced/access]
patches:
- target: {kind: RoleBinding}
  patch: |
    - {op: replace, path: /subjects/0/namespace, value: shop}
`)
	team.apply("namespace: " + staging + `
resources: [CONFIG/overlays/console]
patches:
- target: {kind: RoleBinding, name: apikey-console-certificate}
  patch: |
    - {op: replace, path: /subjects/0/namespace, value: shop}
`)

	namespaces := "--namespaces=" + shop + "," + staging
	controller := operator.StartController(t, env.ServiceAccount(t, shop, "apikey-controller"), namespaces,
		"--leader-elect=true", "--mint-certificates", "--system-namespace="+shop, "--console-namespaces="+staging)
	authenticator := operator.StartAuthenticator(t, env.ServiceAccount(t, shop, "apikey-authenticator"), namespaces, "--plaintext")

	const keys = 20 // in each namespace, so that its cache often lags behind the other one
	for i := range keys {
		for _, namespace := range []string{shop, staging} {
			create(t, env.Client, testenv.NewKey(namespace, fmt.Sprintf("key-%d", i)))
		}
	}
	create(t, env.Client, testenv.NewKey(elsewhere, "key-0"))
	for i := range keys {
		for _, namespace := range []string{shop, staging} {
			token := waitForToken(t, env, namespace, fmt.Sprintf("key-%d", i))
			check := func() int { return checkRead(t, authenticator, namespace, token) }
			g.Eventually(check).WithTimeout(framework.Timeout).Should(Equal(http.StatusOK))
		}
	}
	for _, secret := range []string{"apikey-operator-ca", "apikey-authenticator-tls"} {
		framework.Must(t, env.Client.Get(t.Context(), client.ObjectKey{Namespace: shop, Name: secret}, &corev1.Secret{}))
	}
	g.Eventually(func() error { return consoleCertificateError(t, env, staging) }).WithTimeout(framework.Timeout).Should(Succeed())
	g.Expect(checkRead(t, authenticator, elsewhere, "unknown")).To(Equal(http.StatusServiceUnavailable))
	g.Expect(readKey(t, env, elsewhere, "key-0").Status.Tokens).To(BeEmpty(), "no controller serves this namespace")
	expectNothingForbidden(t, controller, authenticator)
	if strings.Contains(controller.Output(), "has not seen the claim") {
		t.Error("a claim was not seen in the cache of its namespace")
	}

	// No process and no user may do anything in other namespaces, and no user writes a status.
	for _, name := range []string{"apikey-controller", "apikey-authenticator"} {
		process := serviceAccount(t, env, shop, name)
		for _, err := range []error{
			process.List(t.Context(), &v1alpha1.APIKeyList{}), process.List(t.Context(), &v1alpha1.APIKeyList{}, client.InNamespace(elsewhere)),
			process.Get(t.Context(), client.ObjectKey{Namespace: elsewhere, Name: "any"}, &corev1.Secret{}),
		} {
			g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", name, err)
		}
	}
	key := readKey(t, env, shop, "key-0")
	g.Eventually(func() error { return team.Status().Update(t.Context(), key, client.DryRunAll) }).WithTimeout(framework.Timeout).Should(
		MatchError(`apikeys.keys.squirrel.dev "key-0" is forbidden: ` + statusPolicy))
}

// team is a client of a user with the role admin in some namespaces.
type team struct {
	client.Client
	*testing.T
	kubectl func(args ...string) (string, error)
}

func newTeam(t *testing.T, env *testenv.Env, namespaces ...string) *team {
	t.Helper()
	const user = "team"
	for _, namespace := range namespaces {
		create(t, env.Client, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: user},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		})
	}
	framework.Eventually(t, "the role admin has the permissions of apikey-installer", func() bool {
		var admin rbacv1.ClusterRole
		framework.Must(t, env.Client.Get(context.Background(), client.ObjectKey{Name: "admin"}, &admin))
		return strings.Contains(fmt.Sprint(admin.Rules), "apikeys/status")
	})
	credentials := env.User(t, user)
	kubeconfig := env.Kubeconfig(t, credentials)
	return &team{Client: clientFor(t, env, credentials), T: t, kubectl: func(args ...string) (string, error) {
		return env.Kubectl(t, append(args, "--kubeconfig="+kubeconfig)...)
	}}
}

// apply applies a kustomization with the credentials of the team.
func (u *team) apply(kustomization string) {
	u.Helper()
	output, err := u.kubectl("apply", "--server-side", "--kustomize", writeKustomization(u.T, kustomization))
	if err != nil {
		u.Fatalf("%v\n%s", err, output)
	}
}

func readKey(t *testing.T, env *testenv.Env, namespace, name string) *v1alpha1.APIKey {
	t.Helper()
	key := &v1alpha1.APIKey{}
	framework.Must(t, env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, key))
	return key
}

// waitForToken returns the token of a key when it is issued.
func waitForToken(t *testing.T, env *testenv.Env, namespace, name string) string {
	t.Helper()
	framework.Eventually(t, "the key "+name+" of "+namespace+" is issued", func() bool {
		return meta.IsStatusConditionTrue(readKey(t, env, namespace, name).Status.Conditions, v1alpha1.ConditionReady)
	})
	secret := &corev1.Secret{}
	framework.Must(t, env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name + "-token"}, secret))
	return string(secret.Data["token"])
}

// A team applies nothing that applies to the whole cluster.
func TestNamespacedOverlay_HasNoObjectsOfTheCluster(t *testing.T) {
	output, err := installed(t).Kubectl(t, "kustomize", configDir+"/overlays/namespaced")
	framework.Must(t, err)
	for kind := range strings.FieldsSeq(`CustomResourceDefinition ClusterRole ClusterRoleBinding Namespace ValidatingAdmissionPolicy
		ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration`) {
		if strings.Contains("\n"+output, "\nkind: "+kind+"\n") {
			t.Errorf("the overlay has a %s", kind)
		}
	}
}

func TestNamespacedOverlay_HasTheRulesOfTheClusterRoles(t *testing.T) {
	clusterRoles, roles := rulesByRole(t, "ClusterRole", "rbac"), rulesByRole(t, "Role", "overlays/namespaced/access")
	want := map[string][]rbacv1.PolicyRule{
		"apikey-controller-keys":    clusterRoles["apikey-controller"][:4], // the last one is for the webhook
		"apikey-authenticator-keys": clusterRoles["apikey-authenticator"],
	}
	if diff := cmp.Diff(want, roles); diff != "" {
		t.Errorf("rules (-config/rbac +config/overlays/namespaced/access):\n%s", diff)
	}
}

func rulesByRole(t *testing.T, kind, dir string) map[string][]rbacv1.PolicyRule {
	t.Helper()
	rules := map[string][]rbacv1.PolicyRule{}
	for _, m := range manifests(t, dir) {
		if m.kind == kind {
			role := decode[rbacv1.Role](t, m)
			rules[role.Name] = role.Rules
		}
	}
	return rules
}

// Of the policies, only the expressions that name the controller differ from those of config/default.
func TestClusterOverlay_HasThePoliciesOfTheDefault(t *testing.T) {
	env := installed(t)
	policies := func(dir string) (lines []string) {
		output, err := env.Kubectl(t, "kustomize", configDir+"/"+dir)
		framework.Must(t, err)
		for document := range strings.SplitSeq(strings.TrimSpace(output), "\n---\n") {
			if strings.Contains(document, "\nkind: ValidatingAdmissionPolicy") && !strings.Contains(document, "name: apikey-webhook\n") {
				lines = append(lines, strings.Split(document, "\n")...)
			}
		}
		return lines
	}
	want := policies("default")
	for i, line := range want {
		want[i] = strings.ReplaceAll(line, "request.userInfo.username == 'system:serviceaccount:apikey-system:apikey-controller'",
			"request.userInfo.username.matches('^system:serviceaccount:[^:]+:apikey-controller$')")
	}
	if diff := cmp.Diff(want, policies("overlays/cluster")); diff != "" {
		t.Errorf("policies (-default +cluster):\n%s", diff)
	}
}

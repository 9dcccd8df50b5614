// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

func TestInvariant8_TheAuthenticatorReadsNoSecretAndWritesNothing(t *testing.T) {
	env := installed(t)
	key := testenv.NewFixture(t, env).CreateKey("frontend")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "frontend-token"}}
	create(t, env.Client, secret)

	authenticator := serviceAccount(t, env, systemNamespace, "apikey-authenticator")
	ctx, inNamespace := t.Context(), client.InNamespace(key.Namespace)
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"writeAccess":true}}`))
	expectError(t, "list keys", authenticator.List(ctx, &v1alpha1.APIKeyList{}), "")
	for _, refused := range []struct {
		object, verb, resource, group string
		err                           error
	}{
		{`apikeys.keys.squirrel.dev "frontend"`, "get", "apikeys", "keys.squirrel.dev", authenticator.Get(ctx, client.ObjectKeyFromObject(key), key.DeepCopy())},
		{`apikeys.keys.squirrel.dev "frontend"`, "patch", "apikeys", "keys.squirrel.dev", authenticator.Patch(ctx, key.DeepCopy(), patch)},
		{`apikeys.keys.squirrel.dev "frontend"`, "update", "apikeys/status", "keys.squirrel.dev", authenticator.Status().Update(ctx, key.DeepCopy())},
		{`apikeys.keys.squirrel.dev "frontend"`, "delete", "apikeys", "keys.squirrel.dev", authenticator.Delete(ctx, key.DeepCopy())},
		{`apikeys.keys.squirrel.dev`, "create", "apikeys", "keys.squirrel.dev", authenticator.Create(ctx, testenv.NewKey(key.Namespace, "other"))},
		{`secrets "frontend-token"`, "get", "secrets", "", authenticator.Get(ctx, client.ObjectKeyFromObject(secret), secret.DeepCopy())},
		{`secrets`, "list", "secrets", "", authenticator.List(ctx, &corev1.SecretList{}, inNamespace)},
	} {
		expectError(t, "the authenticator's "+refused.verb, refused.err, fmt.Sprintf(
			`%s is forbidden: User "system:serviceaccount:apikey-system:apikey-authenticator" cannot %s resource %q in API group %q in the namespace %q`,
			refused.object, refused.verb, refused.resource, refused.group, key.Namespace))
	}
}

func TestInvariant8_TheConsoleReadsNoSecretWritesNoStatusAndAccessesOneNamespace(t *testing.T) {
	env := installed(t)
	key := testenv.NewKey(tenantNamespace, "console-key")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNamespace, Name: "foreign"}}
	create(t, env.Client, secret)
	elsewhere := testenv.NewFixture(t, env).CreateKey("elsewhere")

	console := serviceAccount(t, env, tenantNamespace, "apikey-console")
	framework.Must(t, console.Create(t.Context(), key, client.DryRunAll))
	const denied = `is forbidden: User "system:serviceaccount:tenant:apikey-console" cannot `
	expectError(t, "read a Secret", console.Get(t.Context(), client.ObjectKeyFromObject(secret), secret),
		`secrets "foreign" `+denied+`get resource "secrets" in API group "" in the namespace "tenant"`)
	expectError(t, "write a status", console.Status().Update(t.Context(), key.DeepCopy()),
		`apikeys.keys.squirrel.dev "console-key" `+denied+`update resource "apikeys/status" in API group "keys.squirrel.dev" in the namespace "tenant"`)
	expectError(t, "read a key of another namespace", console.Get(t.Context(), client.ObjectKeyFromObject(elsewhere), elsewhere),
		`apikeys.keys.squirrel.dev "elsewhere" `+denied+`get resource "apikeys" in API group "keys.squirrel.dev" in the namespace "`+elsewhere.Namespace+`"`)
}

func TestUserRoles_AreAggregatedToTheDefaultRoles(t *testing.T) {
	env := installed(t)
	namespace := env.Namespace(t)
	const read, write = "get,list,watch apikeys", "create,delete,deletecollection,get,list,patch,update,watch apikeys"
	for role, want := range map[string][]string{
		"apikey-viewer": {read},
		"apikey-editor": {write},
		"view":          {read},
		"edit":          {write, read},
		"admin":         {write, read},
	} {
		t.Run(role, func(t *testing.T) {
			create(t, env.Client, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: role}},
			})
			user := env.User(t, role)
			NewWithT(t).Eventually(func() (rules []string) {
				for _, rule := range rulesIn(t, env, user, namespace) {
					if slices.Contains(rule.APIGroups, v1alpha1.GroupVersion.Group) {
						rules = append(rules, strings.Join(slices.Sorted(slices.Values(rule.Verbs)), ",")+" "+strings.Join(rule.Resources, ","))
					}
				}
				slices.Sort(rules)
				return rules
			}).WithTimeout(framework.Timeout).Should(Equal(want))
		})
	}
}

// rulesIn returns the rules in a namespace that the API server reports for these credentials.
func rulesIn(t *testing.T, env *testenv.Env, config *rest.Config, namespace string) (rules []rbacv1.PolicyRule) {
	t.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	create(t, clientFor(t, env, config), review)
	if review.Status.Incomplete {
		t.Fatalf("got an incomplete list of rules: %s", review.Status.EvaluationError)
	}
	for _, r := range review.Status.ResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	for _, r := range review.Status.NonResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
	}
	return rules
}

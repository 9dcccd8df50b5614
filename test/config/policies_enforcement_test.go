// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"testing"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// impersonate returns a client of a user of this name. RBAC allows the user everything, so that only policies deny requests.
func impersonate(t *testing.T, env *testenv.Env, user string) client.Client {
	t.Helper()
	config := rest.CopyConfig(env.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters", "system:serviceaccounts:" + systemNamespace}}
	return clientFor(t, env, config)
}

const controllerUser = "system:serviceaccount:" + systemNamespace + ":apikey-controller"

func TestInvariant8_PoliciesDenyChangesOfForeignSecretsWhateverTheRolesAllow(t *testing.T) {
	env := installed(t)
	controller := impersonate(t, env, controllerUser)
	namespace := env.Namespace(t)
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "foreign"}, StringData: map[string]string{"password": "1"}}
	create(t, env.Client, foreign)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"stringData":{"password":"2"}}`))
	apply := client.RawPatch(types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"foreign"},"stringData":{"password":"2"}}`))

	for verb, err := range map[string]error{
		"update":               controller.Update(t.Context(), foreign.DeepCopy()),
		"patch":                controller.Patch(t.Context(), foreign.DeepCopy(), patch),
		"apply":                controller.Patch(t.Context(), foreign.DeepCopy(), apply, client.FieldOwner("test"), client.ForceOwnership),
		"delete":               controller.Delete(t.Context(), foreign.DeepCopy()),
		"delete of collection": controller.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace(namespace)),
	} {
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(secretsPolicy)), verb)
	}
	framework.Must(t, controller.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign)) // policies do not apply to reads

	key := testenv.NewKey(namespace, "frontend")
	create(t, env.Client, key)
	own := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "own",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))}},
		Type: v1alpha1.SecretTypeToken,
	}
	create(t, controller, own)
	own.OwnerReferences = nil
	NewWithT(t).Expect(controller.Update(t.Context(), own)).To(MatchError(ContainSubstring(secretsPolicy)), "removing the owner from the Secret of a key")
}

func TestInvariant8_TheControllerChangesOnlyTheCABundleOfItsWebhook(t *testing.T) {
	const policy = "ValidatingAdmissionPolicy 'apikey-webhook' with binding 'apikey-webhook' denied request: " +
		"The apikey-operator controller changes only the caBundle of its webhook. " +
		"If you did not send this request, the credentials of the controller are compromised."
	env := installed(t)
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "apikeys.keys.squirrel.dev"}}
	framework.Must(t, env.Client.Get(t.Context(), client.ObjectKeyFromObject(configuration), configuration))

	for field, change := range map[string]func(webhook *admissionregistrationv1.ValidatingWebhook){
		"name":  func(w *admissionregistrationv1.ValidatingWebhook) { w.Name = "other.keys.squirrel.dev" },
		"rules": func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules[0].Resources = []string{"*"} },
		"failurePolicy": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.FailurePolicy = new(admissionregistrationv1.Fail)
		},
		"matchPolicy": func(w *admissionregistrationv1.ValidatingWebhook) { w.MatchPolicy = new(admissionregistrationv1.Exact) },
		"sideEffects": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.SideEffects = new(admissionregistrationv1.SideEffectClassNoneOnDryRun)
		},
		"timeoutSeconds": func(w *admissionregistrationv1.ValidatingWebhook) { w.TimeoutSeconds = new(int32(30)) },
		"reviewVersions": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.AdmissionReviewVersions = []string{"v1", "v1beta1"}
		},
		"namespaceSelector": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.NamespaceSelector.MatchLabels = map[string]string{"a": "b"}
		},
		"objectSelector": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.ObjectSelector.MatchLabels = map[string]string{"a": "b"}
		},
		"matchConditions": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "never", Expression: "false"}}
		},
		"service": func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.Service.Name = "other" },
		"url": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.ClientConfig.Service, w.ClientConfig.URL = nil, new("https://example.com/")
		},
	} {
		changed := configuration.DeepCopy()
		change(&changed.Webhooks[0])
		err := controller.Patch(t.Context(), changed, client.MergeFrom(configuration), client.DryRunAll)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(policy)), field)
	}
	for count, webhooks := range map[string][]admissionregistrationv1.ValidatingWebhook{
		"one more": {configuration.Webhooks[0], {Name: "more.keys.squirrel.dev", ClientConfig: configuration.Webhooks[0].ClientConfig,
			SideEffects: configuration.Webhooks[0].SideEffects, AdmissionReviewVersions: []string{"v1"}}},
		"none": {},
	} {
		changed := configuration.DeepCopy()
		changed.Webhooks = webhooks
		err := controller.Patch(t.Context(), changed, client.MergeFrom(configuration), client.DryRunAll)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(policy)), count)
	}

	changed := configuration.DeepCopy()
	changed.Webhooks[0].ClientConfig.CABundle = []byte("new")
	framework.Must(t, controller.Patch(t.Context(), changed, client.MergeFrom(configuration), client.DryRunAll))

	admin := impersonate(t, env, controllerUser)
	NewWithT(t).Expect(admin.Delete(t.Context(), configuration.DeepCopy(), client.DryRunAll)).To(MatchError(ContainSubstring(policy)))
	another := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "another"}}
	NewWithT(t).Expect(admin.Create(t.Context(), another, client.DryRunAll)).To(MatchError(ContainSubstring(policy)))
}

func TestInvariant8_PoliciesDenyStatusWritesOfSimilarlyNamedUsers(t *testing.T) {
	env := installed(t)
	key := testenv.NewFixture(t, env).CreateKey("frontend")
	framework.Must(t, impersonate(t, env, controllerUser).Status().Update(t.Context(), key))
	for _, user := range []string{
		"apikey-controller",
		controllerUser + "2",
		"System:serviceaccount:" + systemNamespace + ":apikey-controller",
		"system:serviceaccount:" + tenantNamespace + ":apikey-controller",
		"system:serviceaccount:" + systemNamespace + ":apikey-authenticator",
	} {
		err := impersonate(t, env, user).Status().Update(t.Context(), key.DeepCopy())
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(statusPolicy)), user)
	}
}

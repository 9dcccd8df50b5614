// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	statusPolicy = "ValidatingAdmissionPolicy 'apikey-status' with binding 'apikey-status' denied request: " +
		"Only the apikey-operator controller may write the status of an APIKey. Change the spec, and the controller updates the status."
	secretsPolicy = "ValidatingAdmissionPolicy 'apikey-secrets' with binding 'apikey-secrets' denied request: " +
		"The apikey-operator controller writes only Secrets of type keys.squirrel.dev/token that an APIKey controls, " +
		"and the Secrets of the certificates that it issues. If you did not send this request, the credentials of the controller are compromised."
)

func TestInvariant8_OnlyTheControllerWritesTheStatus(t *testing.T) {
	env := installed(t)
	key := testenv.NewFixture(t, env).CreateKey("frontend")
	denied := `apikeys.keys.squirrel.dev "frontend" is forbidden: ` + statusPolicy

	forged := func() *v1alpha1.APIKey {
		forged := key.DeepCopy()
		forged.Status.Tokens = []v1alpha1.TokenRecord{{Hash: "sha256:" + fmt.Sprintf("%064d", 0), NotBefore: new(metav1.Now())}}
		return forged
	}
	patch := client.MergeFrom(key)
	admin := env.Client // in the group system:masters, which RBAC allows everything
	expectError(t, "an administrator's update", admin.Status().Update(t.Context(), forged()), denied)
	expectError(t, "an administrator's patch", admin.Status().Patch(t.Context(), forged(), patch), denied)
	expectError(t, "an administrator's update without changes", admin.Status().Update(t.Context(), key.DeepCopy()), denied)
	_, err := env.Kubectl(t, "apply", "--server-side", "--subresource=status", "--dry-run=server", "--filename=testdata/forged-status.yaml",
		"--namespace", key.Namespace)
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring(statusPolicy)), "an administrator's apply")

	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	expectError(t, "the controller's update", controller.Status().Update(t.Context(), forged()), "")
}

func TestStatus_IsDroppedFromANewKey(t *testing.T) {
	env := installed(t)
	key := testenv.NewKey(env.Namespace(t), "frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: "sha256:" + fmt.Sprintf("%064d", 0), NotBefore: new(metav1.Now())}}
	create(t, env.Client, key)
	if apikey.IsClaimed(key) {
		t.Errorf("got the status %+v, want none", key.Status)
	}
}

func TestInvariant8_TheControllerWritesOnlySecretsOfKeys(t *testing.T) {
	env := installed(t)
	key := testenv.NewFixture(t, env).CreateKey("frontend")
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")

	owner := *metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))
	owner.BlockOwnerDeletion = new(false)
	changed := func(change func(*metav1.OwnerReference)) metav1.OwnerReference {
		reference := owner
		change(&reference)
		return reference
	}
	notController := changed(func(o *metav1.OwnerReference) { o.Controller = nil })
	otherKind := changed(func(o *metav1.OwnerReference) { o.Kind = "APIServer" })
	otherGroup := changed(func(o *metav1.OwnerReference) { o.APIVersion = "keys.example.com/v1" })

	for i, test := range []struct {
		name       string
		secretType corev1.SecretType
		owners     []metav1.OwnerReference
		writable   bool
		deletable  bool
	}{
		{"token type, controlled by a key", v1alpha1.SecretTypeToken, []metav1.OwnerReference{owner}, true, true},
		{"token type, also owned by another object", v1alpha1.SecretTypeToken, []metav1.OwnerReference{notController, owner}, true, true},
		{"no type", "", []metav1.OwnerReference{owner}, false, false},
		{"no type, without an owner", "", nil, false, false},
		{"opaque", corev1.SecretTypeOpaque, []metav1.OwnerReference{owner}, false, false},
		{"opaque, without an owner", corev1.SecretTypeOpaque, nil, false, false},
		{"a type with the token type as prefix", v1alpha1.SecretTypeToken + "s", []metav1.OwnerReference{owner}, false, false},
		{"token type, without an owner", v1alpha1.SecretTypeToken, nil, false, true},
		{"token type, owned but not controlled by a key", v1alpha1.SecretTypeToken, []metav1.OwnerReference{notController}, false, true},
		{"token type, controlled by another kind", v1alpha1.SecretTypeToken, []metav1.OwnerReference{otherKind}, false, false},
		{"token type, controlled by an APIKey of another group", v1alpha1.SecretTypeToken, []metav1.OwnerReference{otherGroup}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			secret := func(name string) *corev1.Secret {
				return &corev1.Secret{
					ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name, OwnerReferences: test.owners},
					Type:       test.secretType,
				}
			}
			created, foreign := fmt.Sprintf("created-%d", i), fmt.Sprintf("foreign-%d", i)
			deniedCreation, deniedDeletion := "", ""
			if !test.writable {
				deniedCreation = fmt.Sprintf("secrets %q is forbidden: %s", created, secretsPolicy)
			}
			if !test.deletable {
				deniedDeletion = fmt.Sprintf("secrets %q is forbidden: %s", foreign, secretsPolicy)
			}
			expectError(t, "creation", controller.Create(t.Context(), secret(created)), deniedCreation)

			create(t, env.Client, secret(foreign)) // by a user with full access
			expectError(t, "deletion", controller.Delete(t.Context(), secret(foreign)), deniedDeletion)
		})
	}
}

// A rotation writes another token to the Secret of a key.
func TestInvariant8_TheControllerLeavesTheSecretOfAKeyToThatKey(t *testing.T) {
	env := installed(t)
	f := testenv.NewFixture(t, env)
	key, another := f.CreateKey("frontend"), f.CreateKey("another")
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	ownedBy := func(key *v1alpha1.APIKey) []metav1.OwnerReference {
		owner := *metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))
		owner.BlockOwnerDeletion = new(false)
		return []metav1.OwnerReference{owner}
	}
	for i, test := range []struct {
		name       string
		secretType corev1.SecretType
		owners     []metav1.OwnerReference
		change     func(*corev1.Secret)
		allowed    bool
	}{
		{"another token", v1alpha1.SecretTypeToken, ownedBy(key), func(s *corev1.Secret) { s.Data = map[string][]byte{"token": nil} }, true},
		{"another owner", v1alpha1.SecretTypeToken, ownedBy(key), func(s *corev1.Secret) { s.OwnerReferences = ownedBy(another) }, false},
		{"no owner", v1alpha1.SecretTypeToken, ownedBy(key), func(s *corev1.Secret) { s.OwnerReferences = nil }, false},
		{"an orphan gets an owner", v1alpha1.SecretTypeToken, nil, func(s *corev1.Secret) { s.OwnerReferences = ownedBy(key) }, false},
		{"an orphan gets a token", v1alpha1.SecretTypeToken, nil, func(s *corev1.Secret) { s.Data = map[string][]byte{"token": nil} }, false},
		{"a Secret of another type", corev1.SecretTypeOpaque, ownedBy(key), func(s *corev1.Secret) { s.Data = map[string][]byte{"token": nil} }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			secret := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: fmt.Sprint("updated-", i), OwnerReferences: test.owners},
				Type:       test.secretType,
			}
			create(t, env.Client, secret)
			test.change(secret)
			denied := ""
			if !test.allowed {
				denied = fmt.Sprintf("secrets %q is forbidden: %s", secret.Name, secretsPolicy)
			}
			expectError(t, "update", controller.Update(t.Context(), secret), denied)
		})
	}
}

func TestInvariant8_TheControllerWritesOnlyItsCertificatesInItsNamespace(t *testing.T) {
	env := installed(t)
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	elsewhere := env.Namespace(t)
	secret := func(namespace, name string, managedBy string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": managedBy},
		}}
	}
	for _, test := range []struct {
		namespace, name, managedBy string
		allowed                    bool
	}{
		{systemNamespace, "apikey-operator-ca", "apikey-operator", true},
		{systemNamespace, "apikey-authenticator-tls", "apikey-operator", true},
		{systemNamespace, "apikey-controller-webhook-tls", "apikey-operator", true},
		{systemNamespace, "apikey-operator-ca", "Helm", false},
		{systemNamespace, "apikey-authenticator-tls-2", "apikey-operator", false},
		{tenantNamespace, "apikey-console-tls", "apikey-operator", true}, // where a console is
		{tenantNamespace, "apikey-console-tls", "Helm", false},
		{tenantNamespace, "apikey-authenticator-tls", "apikey-operator", false},
		{elsewhere, "apikey-operator-ca", "apikey-operator", false},
	} {
		t.Run(test.name+" of "+test.managedBy, func(t *testing.T) {
			created := secret(test.namespace, test.name, test.managedBy)
			denied := fmt.Sprintf("secrets %q is forbidden: %s", test.name, secretsPolicy)
			want := denied
			if test.allowed {
				want = ""
			}
			expectError(t, "creation", controller.Create(t.Context(), created.DeepCopy(), client.DryRunAll), want)

			foreign := secret(test.namespace, test.name, test.managedBy)
			create(t, env.Client, foreign)
			expectError(t, "deletion", controller.Delete(t.Context(), foreign.DeepCopy(), client.DryRunAll), denied)
			change := foreign.DeepCopy()
			change.Data = map[string][]byte{"tls.crt": nil}
			update := controller.Update(t.Context(), change, client.DryRunAll)
			if test.allowed {
				expectError(t, "update", update, "")
				unlabeled := foreign.DeepCopy()
				unlabeled.Labels = nil
				framework.Must(t, env.Client.Update(t.Context(), unlabeled))
				change.ResourceVersion = unlabeled.ResourceVersion
				expectError(t, "update of a Secret without the label", controller.Update(t.Context(), change, client.DryRunAll), denied)
			} else {
				NewWithT(t).Expect(apierrors.IsForbidden(update)).To(BeTrue(), "update: %v", update)
			}
			framework.Must(t, env.Client.Delete(t.Context(), foreign))
		})
	}
}

// Kubernetes writes a token of the ServiceAccount into such a Secret, and the controller may read it.
func TestInvariant8_TheControllerCannotRequestTokensOfOtherServiceAccounts(t *testing.T) {
	env := installed(t)
	const name = "apikey-operator-ca"
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	request := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: systemNamespace, Name: name,
			Labels:      map[string]string{"app.kubernetes.io/managed-by": "apikey-operator"},
			Annotations: map[string]string{corev1.ServiceAccountNameKey: "apikey-authenticator"},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}
	denied := fmt.Sprintf("secrets %q is forbidden: %s", name, secretsPolicy)
	expectError(t, "creation", controller.Create(t.Context(), request, client.DryRunAll), denied)
}

func TestPolicies_AllowGarbageCollectionAndNamespaceDeletion(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	issue := func(namespace, name string) (*v1alpha1.APIKey, *corev1.Secret) {
		key := testenv.NewKey(namespace, name)
		create(t, env.Client, key)
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))}},
			Type: v1alpha1.SecretTypeToken,
		}
		secret.OwnerReferences[0].BlockOwnerDeletion = new(false)
		create(t, controller, secret)
		return key, secret
	}
	isGone := func(object client.Object) func() bool {
		return func() bool {
			return apierrors.IsNotFound(env.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object))
		}
	}

	key, secret := issue(env.Namespace(t), "deleted")
	g.Expect(env.Client.Delete(t.Context(), key, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
	g.Eventually(isGone(secret)).WithTimeout(framework.Timeout).Should(BeTrue(), "the Secret of a deleted key is garbage-collected")
	g.Eventually(isGone(key)).WithTimeout(framework.Timeout).Should(BeTrue(), "with foreground propagation, the key is deleted after its Secret")

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: env.Namespace(t)}}
	issue(namespace.Name, "deleted-with-its-namespace")
	g.Expect(env.Client.Delete(t.Context(), namespace)).To(Succeed())
	g.Eventually(isGone(namespace)).WithTimeout(framework.Timeout).Should(BeTrue(), "a namespace with keys is deleted")
}

func TestPolicies_HaveNoTypeErrors(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	for _, name := range []string{"apikey-status", "apikey-secrets", "apikey-webhook"} {
		policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
		g.Eventually(func() int64 {
			g.Expect(env.Client.Get(t.Context(), client.ObjectKey{Name: name}, policy)).To(Succeed())
			return policy.Status.ObservedGeneration
		}).WithTimeout(framework.Timeout).Should(BeNumerically(">", 0), "kube-controller-manager checks %s", name)
		g.Expect(policy.Status.TypeChecking.ExpressionWarnings).To(BeEmpty(), name)
	}
}

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
)

const (
	statusPolicy = "ValidatingAdmissionPolicy 'apikey-status' with binding 'apikey-status' denied request: " +
		"Only the apikey-operator controller may write the status of an APIKey. Change the spec, and the controller updates the status."
	secretsPolicy = "ValidatingAdmissionPolicy 'apikey-secrets' with binding 'apikey-secrets' denied request: " +
		"The apikey-operator controller writes only Secrets of type keys.squirrel.dev/token that an APIKey controls, " +
		"and the Secrets of the certificates that it issues. If you did not send this request, the credentials of the controller are compromised."
)

func TestInvariant8_OnlyTheControllerWritesAStatus(t *testing.T) {
	env := installed(t)
	key := newKey(env.Namespace(t), "frontend")
	create(t, env.Client, key)
	denied := `apikeys.keys.squirrel.dev "frontend" is forbidden: ` + statusPolicy

	forged := func() *v1alpha1.APIKey {
		forged := key.DeepCopy()
		forged.Status.Tokens = []v1alpha1.TokenRecord{{Hash: "sha256:" + fmt.Sprintf("%064d", 0), NotBefore: new(metav1.Now())}}
		return forged
	}
	patch := client.MergeFrom(key)
	admin := env.Client // of system:masters, which RBAC never refuses
	expectAnswer(t, "an administrator's update", admin.Status().Update(t.Context(), forged()), denied)
	expectAnswer(t, "an administrator's patch", admin.Status().Patch(t.Context(), forged(), patch), denied)
	expectAnswer(t, "an administrator's update that changes nothing", admin.Status().Update(t.Context(), key.DeepCopy()), denied)
	_, err := env.Kubectl(t, "apply", "--server-side", "--subresource=status", "--dry-run=server", "--filename=testdata/forged-status.yaml",
		"--namespace", key.Namespace)
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring(statusPolicy)), "an administrator's apply")

	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	expectAnswer(t, "the controller's update", controller.Status().Update(t.Context(), forged()), "")
}

func TestAStatusThatComesWithACreationIsDropped(t *testing.T) {
	env := installed(t)
	key := newKey(env.Namespace(t), "frontend")
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: "sha256:" + fmt.Sprintf("%064d", 0), NotBefore: new(metav1.Now())}}
	create(t, env.Client, key)
	if apikey.IsClaimed(key) {
		t.Errorf("created with the status %+v", key.Status)
	}
}

func TestInvariant8_TheControllerWritesOnlySecretsOfKeys(t *testing.T) {
	env := installed(t)
	key := newKey(env.Namespace(t), "frontend")
	create(t, env.Client, key)
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")

	owner := *metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))
	owner.BlockOwnerDeletion = new(false)
	changed := func(change func(*metav1.OwnerReference)) metav1.OwnerReference {
		reference := owner
		change(&reference)
		return reference
	}
	noController := changed(func(o *metav1.OwnerReference) { o.Controller = nil })
	noKey := changed(func(o *metav1.OwnerReference) { o.Kind = "APIServer" })
	foreignKey := changed(func(o *metav1.OwnerReference) { o.APIVersion = "keys.example.com/v1" })

	for i, test := range []struct {
		rule       string
		secretType corev1.SecretType
		owners     []metav1.OwnerReference
		writable   bool
		deletable  bool
	}{
		{"of our type, controlled by a key", v1alpha1.SecretTypeToken, []metav1.OwnerReference{owner}, true, true},
		{"of our type, also owned by something else", v1alpha1.SecretTypeToken, []metav1.OwnerReference{noController, owner}, true, true},
		{"of no type", "", []metav1.OwnerReference{owner}, false, false},
		{"of no type, without an owner", "", nil, false, false},
		{"opaque", corev1.SecretTypeOpaque, []metav1.OwnerReference{owner}, false, false},
		{"opaque, without an owner", corev1.SecretTypeOpaque, nil, false, false},
		{"of a type that starts like ours", v1alpha1.SecretTypeToken + "s", []metav1.OwnerReference{owner}, false, false},
		{"of our type, without an owner", v1alpha1.SecretTypeToken, nil, false, true},
		{"of our type, owned but not controlled by a key", v1alpha1.SecretTypeToken, []metav1.OwnerReference{noController}, false, true},
		{"of our type, controlled by no key", v1alpha1.SecretTypeToken, []metav1.OwnerReference{noKey}, false, false},
		{"of our type, controlled by a key of another group", v1alpha1.SecretTypeToken, []metav1.OwnerReference{foreignKey}, false, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			secret := func(name string) *corev1.Secret {
				return &corev1.Secret{
					ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name, OwnerReferences: test.owners},
					Type:       test.secretType,
				}
			}
			written, planted := fmt.Sprintf("written-%d", i), fmt.Sprintf("planted-%d", i)
			deniedCreation, deniedDeletion := "", ""
			if !test.writable {
				deniedCreation = fmt.Sprintf("secrets %q is forbidden: %s", written, secretsPolicy)
			}
			if !test.deletable {
				deniedDeletion = fmt.Sprintf("secrets %q is forbidden: %s", planted, secretsPolicy)
			}
			expectAnswer(t, "creation", controller.Create(t.Context(), secret(written)), deniedCreation)

			create(t, env.Client, secret(planted)) // by somebody else, who may write what they like
			expectAnswer(t, "deletion", controller.Delete(t.Context(), secret(planted)), deniedDeletion)
		})
	}
}

func TestInvariant8_TheControllerWritesItsCertificatesAndNoOtherSecretOfItsNamespace(t *testing.T) {
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
		{systemNamespace, "apikey-console-tls", "apikey-operator", false},
		{elsewhere, "apikey-operator-ca", "apikey-operator", false},
	} {
		t.Run(test.name+" of "+test.managedBy, func(t *testing.T) {
			written := secret(test.namespace, test.name, test.managedBy)
			denied := fmt.Sprintf("secrets %q is forbidden: %s", test.name, secretsPolicy)
			want := denied
			if test.allowed {
				want = ""
			}
			expectAnswer(t, "creation", controller.Create(t.Context(), written.DeepCopy(), client.DryRunAll), want)

			planted := secret(test.namespace, test.name, test.managedBy)
			create(t, env.Client, planted)
			expectAnswer(t, "deletion", controller.Delete(t.Context(), planted.DeepCopy(), client.DryRunAll), denied)
			change := planted.DeepCopy()
			change.Data = map[string][]byte{"tls.crt": nil}
			update := controller.Update(t.Context(), change, client.DryRunAll)
			if test.allowed {
				expectAnswer(t, "update", update, "")
				unlabelled := planted.DeepCopy()
				unlabelled.Labels = nil
				framework.Must(t, env.Client.Update(t.Context(), unlabelled))
				change.ResourceVersion = unlabelled.ResourceVersion
				expectAnswer(t, "an update of one that somebody else made", controller.Update(t.Context(), change, client.DryRunAll), denied)
			} else {
				NewWithT(t).Expect(apierrors.IsForbidden(update)).To(BeTrue(), "update: %v", update)
			}
			framework.Must(t, env.Client.Delete(t.Context(), planted))
		})
	}
}

// Kubernetes would write a token into it, which the controller may read.
func TestInvariant8_TheControllerGetsNoTokenOfAnotherServiceAccount(t *testing.T) {
	env := installed(t)
	const name = "apikey-operator-ca"
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	asking := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: systemNamespace, Name: name,
			Labels:      map[string]string{"app.kubernetes.io/managed-by": "apikey-operator"},
			Annotations: map[string]string{corev1.ServiceAccountNameKey: "apikey-authenticator"},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}
	denied := fmt.Sprintf("secrets %q is forbidden: %s", name, secretsPolicy)
	expectAnswer(t, "creation", controller.Create(t.Context(), asking, client.DryRunAll), denied)
}

func TestPoliciesLetKubernetesDoItsWork(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	controller := serviceAccount(t, env, systemNamespace, "apikey-controller")
	issue := func(namespace, name string) (*v1alpha1.APIKey, *corev1.Secret) {
		key := newKey(namespace, name)
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
	gone := func(object client.Object) func() bool {
		return func() bool {
			return apierrors.IsNotFound(env.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object))
		}
	}

	key, secret := issue(env.Namespace(t), "deleted")
	g.Expect(env.Client.Delete(t.Context(), key, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
	g.Eventually(gone(secret)).WithTimeout(soon).Should(BeTrue(), "the Secret of a deleted key is collected")
	g.Eventually(gone(key)).WithTimeout(soon).Should(BeTrue(), "the key goes after its Secret, for whoever asks for that order")

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: env.Namespace(t)}}
	issue(namespace.Name, "deleted-with-its-namespace")
	g.Expect(env.Client.Delete(t.Context(), namespace)).To(Succeed())
	g.Eventually(gone(namespace)).WithTimeout(soon).Should(BeTrue(), "a namespace with keys goes")
}

func TestPoliciesHaveNoTypeErrors(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	for _, name := range []string{"apikey-status", "apikey-secrets", "apikey-webhook"} {
		policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
		g.Eventually(func() int64 {
			g.Expect(env.Client.Get(t.Context(), client.ObjectKey{Name: name}, policy)).To(Succeed())
			return policy.Status.ObservedGeneration
		}).WithTimeout(soon).Should(BeNumerically(">", 0), "%s is checked by kube-controller-manager", name)
		g.Expect(policy.Status.TypeChecking.ExpressionWarnings).To(BeEmpty(), name)
	}
}

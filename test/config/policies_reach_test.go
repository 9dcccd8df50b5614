// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/testenv"
)

// named returns a client as a user of this name whom RBAC refuses nothing: what stops it is a policy.
func named(t *testing.T, env *testenv.Env, user string) client.Client {
	t.Helper()
	config := rest.CopyConfig(env.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters", "system:serviceaccounts:" + systemNamespace}}
	return clientFor(t, env, config)
}

const controllerUser = "system:serviceaccount:" + systemNamespace + ":apikey-controller"

func TestInvariant8_WhateverRolesSayTheControllerChangesNoForeignSecret(t *testing.T) {
	env := installed(t)
	controller := named(t, env, controllerUser)
	namespace := env.Namespace(t)
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "foreign"}, StringData: map[string]string{"password": "1"}}
	create(t, env.Client, foreign)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"stringData":{"password":"2"}}`))
	apply := client.RawPatch(types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"foreign"},"stringData":{"password":"2"}}`))

	for does, err := range map[string]error{
		"update":               controller.Update(t.Context(), foreign.DeepCopy()),
		"patch":                controller.Patch(t.Context(), foreign.DeepCopy(), patch),
		"apply":                controller.Patch(t.Context(), foreign.DeepCopy(), apply, client.FieldOwner("test"), client.ForceOwnership),
		"delete":               controller.Delete(t.Context(), foreign.DeepCopy()),
		"delete of collection": controller.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace(namespace)),
	} {
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(secretsPolicy)), does)
	}
	must(t, controller.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign)) // no policy is asked about reading

	key := newKey(namespace, "frontend")
	create(t, env.Client, key)
	own := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "own",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(key, v1alpha1.GroupVersion.WithKind("APIKey"))}},
		Type: v1alpha1.SecretTypeToken,
	}
	create(t, controller, own)
	own.OwnerReferences = nil
	NewWithT(t).Expect(controller.Update(t.Context(), own)).To(MatchError(ContainSubstring(secretsPolicy)), "a Secret of a key that is to be foreign")
}

func TestInvariant8_WhateverRolesSayNobodyNamedLikeTheControllerWritesAStatus(t *testing.T) {
	env := installed(t)
	key := newKey(env.Namespace(t), "frontend")
	create(t, env.Client, key)
	must(t, named(t, env, controllerUser).Status().Update(t.Context(), key))
	for _, user := range []string{
		"apikey-controller",
		controllerUser + "2",
		"System:serviceaccount:" + systemNamespace + ":apikey-controller",
		"system:serviceaccount:" + tenantNamespace + ":apikey-controller",
		"system:serviceaccount:" + systemNamespace + ":apikey-authenticator",
	} {
		err := named(t, env, user).Status().Update(t.Context(), key.DeepCopy())
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(statusPolicy)), user)
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestAutoscaler_ScalesTheAuthenticator(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	var autoscaler autoscalingv2.HorizontalPodAutoscaler
	g.Expect(env.Client.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: "apikey-authenticator"}, &autoscaler)).To(Succeed())
	want := autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "apikey-authenticator"}
	g.Expect(cmp.Diff(want, autoscaler.Spec.ScaleTargetRef)).To(BeEmpty())
	g.Expect(*autoscaler.Spec.MinReplicas).To(BeNumerically(">=", 2), "a pod may be evicted at any time")

	var target appsv1.Deployment
	g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(&autoscaler), &target)).To(Succeed())
	for _, container := range target.Spec.Template.Spec.Containers {
		g.Expect(container.Resources.Requests.Cpu().IsZero()).To(BeFalse(), "the utilization refers to the CPU request of %s", container.Name)
	}
}

// An upgrade under load must not remove the replicas that the autoscaler has added.
func TestReapply_KeepsTheReplicasOfTheAutoscaler(t *testing.T) {
	env := installed(t)
	for name, flag := range map[string]string{"server-side": "--server-side=true", "client-side": "--server-side=false"} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			namespace := env.Namespace(t)
			kustomization := writeKustomization(t, "namespace: "+namespace+"\nresources: [CONFIG/authenticator]\n")
			apply := func() {
				t.Helper()
				_, err := env.Kubectl(t, "apply", flag, "--kustomize", kustomization)
				g.Expect(err).NotTo(HaveOccurred())
			}
			apply()
			deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "apikey-authenticator"}}
			scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 5}}
			asAutoscaler := client.WithFieldOwner(env.Client, "kube-controller-manager")
			g.Expect(asAutoscaler.SubResource("scale").Update(t.Context(), deployment, client.WithSubResourceBody(scale))).To(Succeed())

			apply()
			g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
			g.Expect(*deployment.Spec.Replicas).To(BeEquivalentTo(5))
		})
	}
}

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

func TestTheAutoscalerScalesTheAuthenticator(t *testing.T) {
	g := NewWithT(t)
	env := installed(t)
	var autoscaler autoscalingv2.HorizontalPodAutoscaler
	g.Expect(env.Client.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: "apikey-authenticator"}, &autoscaler)).To(Succeed())
	want := autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "apikey-authenticator"}
	g.Expect(cmp.Diff(want, autoscaler.Spec.ScaleTargetRef)).To(BeEmpty())
	g.Expect(*autoscaler.Spec.MinReplicas).To(BeNumerically(">=", 2), "one may go at any time")

	var target appsv1.Deployment
	g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(&autoscaler), &target)).To(Succeed())
	for _, container := range target.Spec.Template.Spec.Containers {
		g.Expect(container.Resources.Requests.Cpu().IsZero()).To(BeFalse(), "utilization is of the CPU that %s requests", container.Name)
	}
}

// An upgrade under load must not take away what the autoscaler has added.
func TestApplyingAgainLeavesTheReplicasOfTheAutoscaler(t *testing.T) {
	env := installed(t)
	for apply, flag := range map[string]string{"server-side": "--server-side=true", "client-side": "--server-side=false"} {
		t.Run(apply, func(t *testing.T) {
			g := NewWithT(t)
			namespace := env.Namespace(t)
			authenticator := inNamespace(t, namespace, "authenticator")
			applied := func() {
				t.Helper()
				_, err := env.Kubectl(t, "apply", flag, "--kustomize", authenticator)
				g.Expect(err).NotTo(HaveOccurred())
			}
			applied()
			deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "apikey-authenticator"}}
			scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 5}}
			asAutoscaler := client.WithFieldOwner(env.Client, "kube-controller-manager")
			g.Expect(asAutoscaler.SubResource("scale").Update(t.Context(), deployment, client.WithSubResourceBody(scale))).To(Succeed())

			applied()
			g.Expect(env.Client.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
			g.Expect(*deployment.Spec.Replicas).To(BeEquivalentTo(5))
		})
	}
}

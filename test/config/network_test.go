// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
)

// Who may reach a port, as policies say it.
const (
	anybody    = "anybody"
	prometheus = "pods of namespaces with metrics=enabled"
)

// Every port of every process is here but health, which only the kubelet of the node needs; nothing keeps a kubelet from it.
func TestNetworkPoliciesOpenThesePortsOfThePods(t *testing.T) {
	want := map[string]map[string]string{
		"apikey-authenticator": {"https": anybody, "grpc": anybody, "metrics": prometheus},
		"apikey-console":       {"https": anybody, "metrics": prometheus},
		"apikey-controller":    {"webhook": anybody, "metrics": prometheus},
	}
	got := map[string]map[string]string{}
	for _, deployment := range deployments(t) {
		got[deployment.Name] = openPorts(t, deployment)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("who may reach which port (-want +got):\n%s", diff)
	}
}

// The Amazon VPC CNI asks for the same name of a port in policies, pods and Services.
func TestPortsOfServicesHaveTheNamesOfThosePoliciesOpen(t *testing.T) {
	var services corev1.ServiceList
	framework.Must(t, installed(t).Client.List(t.Context(), &services, client.InNamespace("apikey-system")))
	if len(services.Items) == 0 {
		t.Error("there is no Service")
	}
	for _, service := range services.Items {
		for _, port := range service.Spec.Ports {
			if port.TargetPort != intstr.FromString(port.Name) {
				t.Errorf("the port %s of %s leads to the port %s of pods", port.Name, service.Name, port.TargetPort.String())
			}
		}
	}
}

func TestTheDocumentedPolicyHoldsWhereTheProcessesConnectTo(t *testing.T) {
	env := installed(t)
	page, err := os.ReadFile("../../docs/security/README.md")
	framework.Must(t, err)
	_, documented, found := strings.Cut(string(page), "```yaml\napiVersion: networking.k8s.io/v1\n")
	documented, _, closed := strings.Cut(documented, "```")
	if !found || !closed {
		t.Fatal("docs/security/README.md has no NetworkPolicy")
	}
	var policy networkingv1.NetworkPolicy
	framework.Must(t, yaml.UnmarshalStrict([]byte(documented), &policy))
	framework.Must(t, env.Client.Create(t.Context(), &policy, client.DryRunAll))
	if diff := cmp.Diff([]networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, policy.Spec.PolicyTypes); diff != "" {
		t.Errorf("what it holds (-want +got):\n%s", diff)
	}
	for _, deployment := range deployments(t) {
		if !selects(t, policy, deployment) {
			t.Errorf("it does not select the pods of %s", deployment.Name)
		}
	}
}

// openPorts returns who may reach which container port of a Deployment, given all NetworkPolicies of its namespace: one must
// select its pods, and name ports that these have.
func openPorts(t *testing.T, deployment appsv1.Deployment) map[string]string {
	t.Helper()
	var policies networkingv1.NetworkPolicyList
	framework.Must(t, installed(t).Client.List(t.Context(), &policies, client.InNamespace(deployment.Namespace)))
	has := map[string]bool{}
	for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
		has[port.Name] = true
	}
	open, selected := map[string]string{}, 0
	for _, policy := range policies.Items {
		if !selects(t, policy, deployment) {
			continue
		}
		selected++
		if diff := cmp.Diff([]networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, policy.Spec.PolicyTypes); diff != "" {
			t.Errorf("%s: what it holds (-want +got):\n%s", policy.Name, diff)
		}
		for _, rule := range policy.Spec.Ingress {
			for _, port := range rule.Ports {
				if port.Port.Type != intstr.String || !has[port.Port.StrVal] {
					t.Errorf("%s: the pods of %s have no port named %s", policy.Name, deployment.Name, port.Port)
				}
				open[port.Port.StrVal] = whoMay(t, rule)
			}
		}
	}
	if selected != 1 {
		t.Errorf("%d NetworkPolicies select the pods of %s", selected, deployment.Name)
	}
	return open
}

func selects(t *testing.T, policy networkingv1.NetworkPolicy, deployment appsv1.Deployment) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
	framework.Must(t, err)
	return selector.Matches(labels.Set(deployment.Spec.Template.Labels))
}

func whoMay(t *testing.T, rule networkingv1.NetworkPolicyIngressRule) string {
	t.Helper()
	labeled := []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"metrics": "enabled"}},
	}}
	switch {
	case len(rule.From) == 0:
		return anybody
	case cmp.Equal(labeled, rule.From):
		return prometheus
	default:
		t.Fatalf("who may is not known here: %+v", rule.From)
		return ""
	}
}

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
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/test/framework"
)

// The clients that a NetworkPolicy allows.
const (
	all        = "all"
	prometheus = "pods of namespaces with metrics=enabled"
	controller = "pods of the controller"
)

// The health ports are missing: only the kubelet uses them, and NetworkPolicies do not apply to it.
func TestNetworkPolicies_AllowTheseClients(t *testing.T) {
	want := map[string]map[string]string{
		"apikey-authenticator": {"https": all, "grpc": all, "metrics": prometheus, "usage": controller},
		"apikey-console":       {"https": all, "metrics": prometheus},
		"apikey-controller":    {"webhook": all, "metrics": prometheus},
	}
	got := map[string]map[string]string{}
	for _, deployment := range deployments(t) {
		got[deployment.Name] = openPorts(t, deployment)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("allowed clients of the ports (-want +got):\n%s", diff)
	}
}

// The Amazon VPC CNI requires that a port has the same name in NetworkPolicies, pods and Services.
func TestServices_NameTheirPortsLikeThePods(t *testing.T) {
	var services corev1.ServiceList
	framework.Must(t, installed(t).Client.List(t.Context(), &services, client.InNamespace("apikey-system")))
	if len(services.Items) == 0 {
		t.Error("got no Services, want at least one")
	}
	for _, service := range services.Items {
		for _, port := range service.Spec.Ports {
			if port.TargetPort != intstr.FromString(port.Name) {
				t.Errorf("%s, port %s: got the target port %s, want the same name", service.Name, port.Name, port.TargetPort.String())
			}
		}
	}
}

// Some Ingress controllers and Gateways connect without TLS unless appProtocol is set. Only the API server calls the webhook.
func TestServices_NameTheProtocolOfPortsThatReceiveKeys(t *testing.T) {
	want := map[string]string{
		"apikey-authenticator https": "https", "apikey-authenticator grpc": "https", "apikey-console https": "https",
		"apikey-authenticator-usage usage":  "",
		"apikey-controller-webhook webhook": "", "apikey-metrics metrics": "",
	}
	got := map[string]string{}
	var services corev1.ServiceList
	framework.Must(t, installed(t).Client.List(t.Context(), &services, client.MatchingLabels{"app.kubernetes.io/name": "apikey-operator"}))
	for _, service := range services.Items {
		for _, port := range service.Spec.Ports {
			got[service.Name+" "+port.Name] = ptr.Deref(port.AppProtocol, "")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("application protocols (-want +got):\n%s", diff)
	}
}

func TestTheDocumentedEgressPolicy_SelectsAllPods(t *testing.T) {
	env := installed(t)
	page, err := os.ReadFile("../../docs/security/README.md")
	framework.Must(t, err)
	_, documented, found := strings.Cut(string(page), "```yaml\napiVersion: networking.k8s.io/v1\n")
	documented, _, closed := strings.Cut(documented, "```")
	if !found || !closed {
		t.Fatal("docs/security/README.md has no code block with a NetworkPolicy")
	}
	var policy networkingv1.NetworkPolicy
	framework.Must(t, yaml.UnmarshalStrict([]byte(documented), &policy))
	framework.Must(t, env.Client.Create(t.Context(), &policy, client.DryRunAll))
	if diff := cmp.Diff([]networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, policy.Spec.PolicyTypes); diff != "" {
		t.Errorf("policy types (-want +got):\n%s", diff)
	}
	for _, deployment := range deployments(t) {
		if !selects(t, policy, deployment) {
			t.Errorf("the policy does not select the pods of %s", deployment.Name)
		}
	}
}

// openPorts returns which clients the NetworkPolicies allow for each container port of a Deployment. Exactly one policy must select its
// pods, and the ports in it must exist.
func openPorts(t *testing.T, deployment appsv1.Deployment) map[string]string {
	t.Helper()
	var policies networkingv1.NetworkPolicyList
	framework.Must(t, installed(t).Client.List(t.Context(), &policies, client.InNamespace(deployment.Namespace)))
	exists := map[string]bool{}
	for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
		exists[port.Name] = true
	}
	open, selected := map[string]string{}, 0
	for _, policy := range policies.Items {
		if !selects(t, policy, deployment) {
			continue
		}
		selected++
		if diff := cmp.Diff([]networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, policy.Spec.PolicyTypes); diff != "" {
			t.Errorf("%s: policy types (-want +got):\n%s", policy.Name, diff)
		}
		for _, rule := range policy.Spec.Ingress {
			for _, port := range rule.Ports {
				if port.Port.Type != intstr.String || !exists[port.Port.StrVal] {
					t.Errorf("%s: the pods of %s have no port named %s", policy.Name, deployment.Name, port.Port)
				}
				open[port.Port.StrVal] = allowedClients(t, rule)
			}
		}
	}
	if selected != 1 {
		t.Errorf("got %d NetworkPolicies that select the pods of %s, want 1", selected, deployment.Name)
	}
	return open
}

func selects(t *testing.T, policy networkingv1.NetworkPolicy, deployment appsv1.Deployment) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
	framework.Must(t, err)
	return selector.Matches(labels.Set(deployment.Spec.Template.Labels))
}

func allowedClients(t *testing.T, rule networkingv1.NetworkPolicyIngressRule) string {
	t.Helper()
	labeled := []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"metrics": "enabled"}},
	}}
	ofController := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{
		"app.kubernetes.io/name": "apikey-operator", "app.kubernetes.io/component": "controller",
	}}}}
	switch {
	case len(rule.From) == 0:
		return all
	case cmp.Equal(labeled, rule.From):
		return prometheus
	case cmp.Equal(ofController, rule.From):
		return controller
	default:
		t.Fatalf("got an unexpected peer: %+v", rule.From)
		return ""
	}
}

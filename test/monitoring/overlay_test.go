// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build monitoring

package monitoring_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"squirrel.dev/apikey-operator/hack/controlplane"
	"squirrel.dev/apikey-operator/test/framework"
)

// overlay has the objects of config/overlays/prometheus.
type overlay struct {
	serviceMonitor monitoringv1.ServiceMonitor
	podMonitor     monitoringv1.PodMonitor
	rules          monitoringv1.PrometheusRule
	dashboard      corev1.ConfigMap
}

// dashboard is the part of a Grafana dashboard that the tests read.
type dashboard struct {
	Panels []struct {
		Title, Description, Type string
		Targets                  []struct{ Expr string }
	}
}

// newOverlay reads the overlay. An unknown field ends the test.
func newOverlay(t *testing.T) *overlay {
	t.Helper()
	o := &overlay{}
	readKustomization(t, "overlays/prometheus", map[string]any{
		"ServiceMonitor/apikey-operator": &o.serviceMonitor,
		"PodMonitor/apikey-console":      &o.podMonitor,
		"PrometheusRule/apikey-operator": &o.rules,
		"ConfigMap/apikey-dashboard":     &o.dashboard,
	})
	return o
}

// readKustomization reads objects of a kustomization, by kind and name.
func readKustomization(t *testing.T, name string, objects map[string]any) {
	t.Helper()
	root, err := controlplane.FindRepository()
	framework.Must(t, err)
	assets, err := controlplane.FindAssets()
	framework.Must(t, err)
	output, err := exec.CommandContext(t.Context(), filepath.Join(assets, "kubectl"), "kustomize", filepath.Join(root, "config", name)).Output()
	framework.Must(t, err)
	found := map[string]bool{}
	for document := range strings.SplitSeq(string(output), "\n---\n") {
		var header metav1.PartialObjectMetadata
		framework.Must(t, yaml.Unmarshal([]byte(document), &header))
		object := header.Kind + "/" + header.Name
		if into, wanted := objects[object]; wanted {
			framework.Must(t, yaml.UnmarshalStrict([]byte(document), into))
			found[object] = true
		}
	}
	if len(found) != len(objects) {
		t.Fatalf("config/%s: got only the objects %v", name, found)
	}
}

func TestServiceMonitor_SelectsTheMetricsService(t *testing.T) {
	monitor := newOverlay(t).serviceMonitor
	var service corev1.Service
	readKustomization(t, "default", map[string]any{"Service/apikey-metrics": &service})
	selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	framework.Must(t, err)
	if monitor.Namespace != service.Namespace || !selector.Matches(labels.Set(service.Labels)) {
		t.Errorf("the ServiceMonitor selects %s in %s, want the Service in %s with the labels %v", selector, monitor.Namespace, service.Namespace, service.Labels)
	}
	if endpoint, port := monitor.Spec.Endpoints[0].Port, service.Spec.Ports[0].Name; endpoint != port {
		t.Errorf("the ServiceMonitor scrapes the port %q, want %q", endpoint, port)
	}
	if service.Labels[monitor.Spec.JobLabel] != job {
		t.Errorf("got the job %q, want %q", service.Labels[monitor.Spec.JobLabel], job)
	}
}

func TestPodMonitor_SelectsTheConsolesOfAllNamespaces(t *testing.T) {
	monitor := newOverlay(t).podMonitor
	var console appsv1.Deployment
	readKustomization(t, "overlays/console", map[string]any{"Deployment/apikey-console": &console})
	selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	framework.Must(t, err)
	pod := console.Spec.Template
	if !monitor.Spec.NamespaceSelector.Any || !selector.Matches(labels.Set(pod.Labels)) {
		t.Errorf("the PodMonitor selects %s, want pods of all namespaces with the labels %v", selector, pod.Labels)
	}
	port := *monitor.Spec.PodMetricsEndpoints[0].Port
	if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
		t.Errorf("the PodMonitor scrapes the port %q, which the pods do not have", port)
	}
	if pod.Labels[monitor.Spec.JobLabel] != job {
		t.Errorf("got the job %q, want %q", pod.Labels[monitor.Spec.JobLabel], job)
	}
}

func TestDashboard_IsFoundByTheSidecarAndDescribed(t *testing.T) {
	overlay := newOverlay(t)
	if label := overlay.dashboard.Labels["grafana_dashboard"]; label != "1" {
		t.Errorf("got the label grafana_dashboard=%q, want 1", label)
	}
	for _, panel := range overlay.panels(t).Panels {
		if panel.Type != "row" && (panel.Description == "" || len(panel.Targets) == 0) {
			t.Errorf("the panel %q has no description or no query", panel.Title)
		}
	}
}

func (o *overlay) panels(t *testing.T) (d dashboard) {
	t.Helper()
	framework.Must(t, json.Unmarshal([]byte(o.dashboard.Data["apikey-operator.json"]), &d))
	return d
}

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

// overlay is what config/overlays/prometheus installs.
type overlay struct {
	monitor   monitoringv1.ServiceMonitor
	consoles  monitoringv1.PodMonitor
	rules     monitoringv1.PrometheusRule
	dashboard corev1.ConfigMap
}

// dashboard is what matters here of Grafana's format.
type dashboard struct {
	Panels []struct {
		Title, Description, Type string
		Targets                  []struct{ Expr string }
	}
}

// newOverlay reads the overlay. A field that its kinds do not have fails the test.
func newOverlay(t *testing.T) *overlay {
	t.Helper()
	o := &overlay{}
	readKustomization(t, "overlays/prometheus", map[string]any{
		"ServiceMonitor/apikey-operator": &o.monitor,
		"PodMonitor/apikey-console":      &o.consoles,
		"PrometheusRule/apikey-operator": &o.rules,
		"ConfigMap/apikey-dashboard":     &o.dashboard,
	})
	return o
}

// readKustomization reads the objects that have to be in a kustomization, by kind and name.
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
		t.Fatalf("config/%s has of the wanted objects only %v", name, found)
	}
}

func TestTheServiceMonitorFindsTheProcesses(t *testing.T) {
	monitor := newOverlay(t).monitor
	var service corev1.Service
	readKustomization(t, "default", map[string]any{"Service/apikey-metrics": &service})
	selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	framework.Must(t, err)
	if monitor.Namespace != service.Namespace || !selector.Matches(labels.Set(service.Labels)) {
		t.Errorf("the ServiceMonitor selects %s in %s, not the Service of %s with the labels %v", selector, monitor.Namespace, service.Namespace, service.Labels)
	}
	if endpoint, port := monitor.Spec.Endpoints[0].Port, service.Spec.Ports[0].Name; endpoint != port {
		t.Errorf("the ServiceMonitor scrapes the port %q, and the Service has %q", endpoint, port)
	}
	if service.Labels[monitor.Spec.JobLabel] != job {
		t.Errorf("the job is called %q", service.Labels[monitor.Spec.JobLabel])
	}
}

func TestThePodMonitorFindsTheConsolesOfAllNamespaces(t *testing.T) {
	monitor := newOverlay(t).consoles
	var console appsv1.Deployment
	readKustomization(t, "overlays/console", map[string]any{"Deployment/apikey-console": &console})
	selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	framework.Must(t, err)
	pod := console.Spec.Template
	if !monitor.Spec.NamespaceSelector.Any || !selector.Matches(labels.Set(pod.Labels)) {
		t.Errorf("the PodMonitor selects %s, not the pods of all namespaces with the labels %v", selector, pod.Labels)
	}
	port := *monitor.Spec.PodMetricsEndpoints[0].Port
	if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
		t.Errorf("the PodMonitor scrapes the port %q, which a console does not have", port)
	}
	if pod.Labels[monitor.Spec.JobLabel] != job {
		t.Errorf("the job is called %q", pod.Labels[monitor.Spec.JobLabel])
	}
}

func TestTheSidecarFindsTheDashboard(t *testing.T) {
	overlay := newOverlay(t)
	if label := overlay.dashboard.Labels["grafana_dashboard"]; label != "1" {
		t.Errorf("its label grafana_dashboard is %q", label)
	}
	for _, panel := range overlay.panels(t).Panels {
		if panel.Type != "row" && (panel.Description == "" || len(panel.Targets) == 0) {
			t.Errorf("the panel %q has no description, or shows nothing", panel.Title)
		}
	}
}

func (o *overlay) panels(t *testing.T) (d dashboard) {
	t.Helper()
	framework.Must(t, json.Unmarshal([]byte(o.dashboard.Data["apikey-operator.json"]), &d))
	return d
}

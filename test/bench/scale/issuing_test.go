// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build bench

package scale_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/bench/report"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/metrics"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	issuedPerSetup = 500
	processorTime  = "process_cpu_seconds_total"
)

// TestIssuing measures how fast the controller issues keys, compared with a client that sends the same writes, and how long the API server
// takes for each call of the controller. It adds the validations of the API server one after the other. The webhook is not among them: its
// configuration matches no status and no Secret, so that issuing does not call it.
func TestIssuing(t *testing.T) {
	p := newPopulation(t)
	p.fill(issuedPerSetup)
	measured := report.Report{Command: "make bench-issuing"}
	for _, setup := range []struct {
		name  string
		apply func()
		calls []apiCall
	}{
		{"without rules and policies", p.removeRules, writes},
		{"with the rules of the CRD", p.restoreRules, writes},
		{"with rules and policies", p.applyPolicies, slices.Concat(writes, partsOfWrites)},
	} {
		setup.apply()
		measured.Rows = append(measured.Rows, p.issuing(setup.name, setup.calls)...)
		t.Logf("\n%s", &measured)
	}
	framework.Must(t, measured.Write(inRepository(t, "docs", "benchmarks.md")))
}

// issuing returns the rates, and the durations of the controller's calls in the API server.
func (p *population) issuing(setup string, calls []apiCall) []report.Row {
	p.t.Helper()
	var issued, written, byController, byAPIServer []float64
	durations := map[string][]float64{}
	for range *turns {
		controller := p.startController()
		before, usedBefore := p.apiMetrics(), controller.Metric(processorTime)
		issued = append(issued, p.rateOfController(controller, issuedPerSetup))
		after, used := p.apiMetrics(), controller.Metric(processorTime)
		controller.Kill() // it would issue the keys of the client
		byController = append(byController, (used-usedBefore)/issuedPerSetup*1000)
		byAPIServer = append(byAPIServer, (after.Sum(processorTime, nil)-before.Sum(processorTime, nil))/issuedPerSetup*1000)
		for _, call := range calls {
			durations[call.name] = append(durations[call.name], call.duration(p.t, before, after))
		}
		written = append(written, p.rateOfClient(issuedPerSetup))
	}
	rows := []report.Row{{
		Figure: fmt.Sprintf("issuing %s keys at once, %s", report.Thousands(issuedPerSetup), setup), Unit: "keys/s", Values: issued,
		Floor: "a client that sends as many of the same writes at a time", Floors: written, Bar: report.Bar{AtLeast: 0.9},
	}, {
		Figure: "processor time of the controller for a key, " + setup, Unit: "ms", Values: byController,
	}, {
		Figure: "processor time of the API server for a key, from its creation on, " + setup, Unit: "ms", Values: byAPIServer,
	}}
	for _, call := range calls {
		rows = append(rows, report.Row{Figure: call.name + ", " + setup, Unit: "ms", Values: durations[call.name]})
	}
	return rows
}

// apiCall is a histogram of the API server.
type apiCall struct {
	name, histogram string
	labels          metrics.Labels
}

// writes are the writes of a key.
var writes = []apiCall{
	{"API server: `PUT` of a status", "apiserver_request_duration_seconds", metrics.Labels{
		"verb": "PUT", "resource": "apikeys", "subresource": "status"}},
	{"API server: `POST` of a Secret", "apiserver_request_duration_seconds", metrics.Labels{"verb": "POST", "resource": "secrets"}},
}

// partsOfWrites are parts of the API server's time for these writes.
var partsOfWrites = []apiCall{
	{"policies in the `PUT`", "apiserver_admission_controller_admission_duration_seconds", metrics.Labels{
		"name": "ValidatingAdmissionPolicy", "operation": "UPDATE", "type": "validate"}},
	{"policies in the `POST`", "apiserver_admission_controller_admission_duration_seconds", metrics.Labels{
		"name": "ValidatingAdmissionPolicy", "operation": "CREATE", "type": "validate"}},
	{"etcd in the `PUT`", "etcd_request_duration_seconds", metrics.Labels{"operation": "update", "resource": "apikeys"}},
	{"etcd in the `POST`", "etcd_request_duration_seconds", metrics.Labels{"operation": "create", "resource": "secrets"}},
}

// duration returns the mean of the calls between two readings of the metrics, in milliseconds. It ends the test if there were none.
func (c *apiCall) duration(t *testing.T, before, after metrics.Families) float64 {
	t.Helper()
	sumBefore, countBefore := before.Histogram(c.histogram, c.labels)
	sum, count := after.Histogram(c.histogram, c.labels)
	if count == countBefore {
		t.Fatalf("the API server counted no call in %s with %v", c.histogram, c.labels)
	}
	return (sum - sumBefore) / (count - countBefore) * 1000
}

// apiMetrics returns the metrics of the API server.
func (p *population) apiMetrics() metrics.Families {
	p.t.Helper()
	config := p.AdminConfig()
	access, err := rest.HTTPClientFor(config)
	framework.Must(p.t, err)
	return metrics.Read(p.t, access, config.Host+"/metrics")
}

// removeRules removes the CEL rules of the CRD, and waits until the API server accepts what they refuse.
func (p *population) removeRules() {
	p.t.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	framework.Must(p.t, p.Client.Get(p.t.Context(), client.ObjectKey{Name: "apikeys.keys.squirrel.dev"}, crd))
	dropRules(crd.Object)
	framework.Must(p.t, p.Client.Update(p.t.Context(), crd))
	p.awaitRules(false)
}

// dropRules removes the CEL rules of a schema and of its parts.
func dropRules(value any) {
	switch part := value.(type) {
	case map[string]any:
		delete(part, "x-kubernetes-validations")
		for _, child := range part {
			dropRules(child)
		}
	case []any:
		for _, child := range part {
			dropRules(child)
		}
	}
}

func (p *population) restoreRules() {
	p.t.Helper()
	_, err := p.Kubectl(p.t, "apply", "--server-side", "--force-conflicts", "--kustomize="+inRepository(p.t, "config", "crd"))
	framework.Must(p.t, err)
	p.awaitRules(true)
}

// awaitRules waits until the API server refuses, or accepts, an interval that only a rule excludes.
func (p *population) awaitRules(refused bool) {
	p.t.Helper()
	framework.EventuallyWithin(p.t, time.Minute, 50*time.Millisecond, "the API server has the other schema", func() bool {
		key := testenv.NewKey(namespaceName(0), "excluded")
		key.Spec.Rotation = &v1alpha1.Rotation{Interval: &metav1.Duration{Duration: time.Minute}}
		return apierrors.IsInvalid(p.Client.Create(p.t.Context(), key, client.DryRunAll)) == refused
	})
}

// applyPolicies applies the policies of config, and waits until only the controller may write a status.
func (p *population) applyPolicies() {
	p.t.Helper()
	_, err := p.Kubectl(p.t, "apply", "--server-side", "--kustomize="+inRepository(p.t, "config", "policies"))
	framework.Must(p.t, err)
	framework.EventuallyWithin(p.t, time.Minute, 50*time.Millisecond, "the policies are in effect", func() bool {
		return apierrors.IsForbidden(p.Client.Status().Update(p.t.Context(), p.read(&p.issued[0]), client.DryRunAll))
	})
}

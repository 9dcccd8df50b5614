// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"squirrel.dev/apikey-operator/test/e2e/load"
	"squirrel.dev/apikey-operator/test/framework"
)

// requestsAfter is how many requests each target gets after an incident.
const requestsAfter = 300

// targets get the load: a gateway, and the Service of the authenticator over HTTP and gRPC.
var targets = []string{"gateway", "HTTP", "gRPC"}

// incident is an event during the load.
type incident struct {
	name string
	// run causes the incident, and returns when it is over.
	run func(*tenant, *testing.T)
	// breaksConnections is true if connections inevitably break, so that clients retry.
	breaksConnections bool
}

var incidents = []incident{
	{name: "nothing", run: (*tenant).measureUsageUnderLoad},
	{name: "restart of the authenticators", run: (*tenant).restartAuthenticators},
	{name: "restart of the controllers", run: (*tenant).restartControllers},
	{name: "two rotations of the token", run: (*tenant).rotateTokenTwice},
	{name: "leader killed during a rotation of the token", run: (*tenant).killLeaderWhileRotating},
	{name: "rotation of the certificates", run: (*tenant).rotate},
	{name: "authenticator killed", run: (*tenant).killAuthenticator, breaksConnections: true},
	{name: "leader killed while 500 keys are applied", run: (*tenant).killLeaderWhileApplying},
	{name: "upgrade", run: (*tenant).upgradeAll},
}

// TestLoad_NoIncidentRefusesAValidRequestOrGrantsAnInvalidOne sends valid and invalid requests during all incidents.
func TestLoad_NoIncidentRefusesAValidRequestOrGrantsAnInvalidOne(t *testing.T) {
	shared.install(t)
	tenant := shared.tenant(t)
	tenant.keepCopying(t)
	shared.measureUsage(t, "Used at rest")
	lastUse := tenant.watchLastUse(t)
	var rows [][]string
	for _, incident := range incidents {
		t.Run(incident.name, func(t *testing.T) {
			tenant.begin(t, incident.name)
			incident.run(tenant, t)
			finished := tenant.finish(t, incident.name)
			for _, target := range targets {
				expectNoFailures(t, target, finished[target], incident.breaksConnections)
				rows = append(rows, row(incident.name, target, finished[target]))
			}
		})
	}
	t.Run("the last use is recorded", lastUse.expect)
	do(t, tenant.clientRequest("DELETE", "phases"))
	shared.report.add("Under load", table([]string{
		"incident", "target", "seconds", "requests", "valid refused", "invalid granted", "invalid not denied", "retried", "p50 ms", "p99 ms", "max ms",
	}, rows), "Each target gets 100 requests per second. 8 of 10 have a valid key, and one of these is a write, which the key does not allow. "+
		"Every seventh request uses a new connection. The client reads its key from a mounted Secret for each request. A request is *retried* if its connection ended and the client could not know whether the server "+
		"had processed it. The target *gateway* is Caddy; *HTTP* and *gRPC* are the checks that gateways send to the authenticator.")
}

// begin begins a phase of the load.
func (n *tenant) begin(t *testing.T, phase string) {
	t.Helper()
	do(t, n.clientRequest("POST", "phases", phase))
}

// phase returns the results of a phase so far, by target.
func (n *tenant) phase(t *testing.T, name string) map[string]load.Phase {
	t.Helper()
	report := map[string]load.Phase{}
	framework.Must(t, json.Unmarshal([]byte(do(t, n.clientRequest("GET", "phases", name))), &report))
	return report
}

// finish ends a phase after requestsAfter more requests. It waits for the last response, and returns the results by target.
func (n *tenant) finish(t *testing.T, name string) map[string]load.Phase {
	t.Helper()
	g := NewWithT(t)
	incident := n.phase(t, name)
	g.Eventually(func(g Gomega) {
		for target, phase := range n.phase(t, name) {
			g.Expect(phase.Requests).To(BeNumerically(">=", incident[target].Requests+requestsAfter))
		}
	}).Should(Succeed())
	n.begin(t, "between")
	var finished map[string]load.Phase
	g.Eventually(func(g Gomega) {
		finished = n.phase(t, name)
		for _, phase := range finished {
			g.Expect(phase.Pending).To(BeZero())
		}
	}).Should(Succeed())
	return finished
}

func expectNoFailures(t *testing.T, target string, phase load.Phase, connectionsBreak bool) {
	t.Helper()
	if phase.Requests < requestsAfter {
		t.Errorf("%s: got %d requests, want at least %d", target, phase.Requests, requestsAfter)
	}
	good := phase.Refused == 0 && phase.LetThrough == 0 && phase.Unanswered == 0
	// This project does not control the connections between a gateway and its clients.
	if !connectionsBreak && target != "gateway" {
		good = good && phase.Retried == 0
	}
	if !good {
		t.Errorf("%s: of %d requests, %d valid ones were refused, %d invalid ones granted, %d invalid ones not denied, %d retried: %v",
			target, phase.Requests, phase.Refused, phase.LetThrough, phase.Unanswered, phase.Retried, phase.Responses)
	}
	for _, problem := range phase.Problems {
		t.Logf("%s: %s: %s: %s", target, problem.Time.Format(time.StampMilli), problem.Request, problem.Response)
	}
}

func row(incident, target string, phase load.Phase) []string {
	cells := []string{incident, target, fmt.Sprintf("%.0f", phase.End.Sub(phase.Start).Seconds())}
	for _, count := range []int{phase.Requests, phase.Refused, phase.LetThrough, phase.Unanswered, phase.Retried} {
		cells = append(cells, strconv.Itoa(count))
	}
	return append(cells, milliseconds(phase.P50), milliseconds(phase.P99), milliseconds(phase.Max))
}

func (n *tenant) measureUsageUnderLoad(t *testing.T) {
	t.Helper()
	n.measureUsage(t, "Used under load")
}

func (n *tenant) restartAuthenticators(t *testing.T) {
	t.Helper()
	n.restart(t, authenticators)
}

func (n *tenant) restartControllers(t *testing.T) {
	t.Helper()
	n.restart(t, controllers)
}

// upgradeAll upgrades to another version of the image.
func (n *tenant) upgradeAll(t *testing.T) {
	t.Helper()
	n.applyInstaller(t, n.upgrade)
}

// restart restarts all pods of a Deployment with kubectl.
func (n *tenant) restart(t *testing.T, deployment string) {
	t.Helper()
	before := n.pods(t, deployment)
	n.kubectl(t, "", "rollout", "restart", "deployment/"+deployment, "--namespace", systemNamespace)
	n.awaitReplaced(t, deployment, before...)
}

// killAuthenticator force-deletes a pod.
func (n *tenant) killAuthenticator(t *testing.T) {
	t.Helper()
	pod := n.pods(t, authenticators)[0]
	n.forceDelete(t, pod)
	n.awaitReplaced(t, authenticators, pod)
}

// forceDelete deletes a pod without a grace period.
func (c *cluster) forceDelete(t *testing.T, pod corev1.Pod) {
	t.Helper()
	c.kubectl(t, "", "delete", "pod", pod.Name, "--namespace", pod.Namespace, "--grace-period=0", "--force")
}

// pods returns the pods of a Deployment.
func (c *cluster) pods(t *testing.T, deployment string) []corev1.Pod {
	t.Helper()
	selector := "app.kubernetes.io/component=" + map[string]string{controllers: "controller", authenticators: "authenticator"}[deployment]
	pods, err := c.clients.CoreV1().Pods(systemNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	framework.Must(t, err)
	return pods.Items
}

// awaitReplaced waits until all replicas are ready and none of them is one of these pods.
func (c *cluster) awaitReplaced(t *testing.T, deployment string, replaced ...corev1.Pod) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		pods := c.pods(t, deployment)
		g.Expect(pods).To(HaveLen(replicas))
		for _, pod := range pods {
			for _, other := range replaced {
				g.Expect(pod.UID).NotTo(Equal(other.UID))
			}
			g.Expect(pod.Status.Conditions).To(ContainElement(And(
				HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
		}
	}).Should(Succeed())
}

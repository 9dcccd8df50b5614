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
)

// aftermath is how many requests more are made on each target after something went on.
const aftermath = 300

// targets are the ways to ask that are under load: through a gateway, and of the authenticator's Service itself as gateways do.
var targets = []string{"gateway", "HTTP", "gRPC"}

// incident is something that goes on under load.
type incident struct {
	name string
	// happen makes it happen, and returns when it is over.
	happen func(*tenant, *testing.T)
	// severs is true where connections cannot but break off: then a client asks again.
	severs bool
}

var incidents = []incident{
	{name: "nothing", happen: (*tenant).measureUsageUnderLoad},
	{name: "restart of the authenticators", happen: (*tenant).restartAuthenticators},
	{name: "restart of the controllers", happen: (*tenant).restartControllers},
	{name: "rotation of the certificates", happen: (*tenant).rotate},
	{name: "authenticator killed", happen: (*tenant).killAuthenticator, severs: true},
	{name: "leader killed while 500 keys are applied", happen: (*tenant).killLeaderWhileApplying},
	{name: "upgrade", happen: (*tenant).upgradeAll},
}

// TestNoRequestIsLostOrLetThrough asks all the time, with a good key and without, whatever goes on.
func TestNoRequestIsLostOrLetThrough(t *testing.T) {
	shared.install(t)
	tenant := shared.tenant(t)
	tenant.keepCopying(t)
	shared.measureUsage(t, "Used at rest")
	var rows [][]string
	for _, incident := range incidents {
		t.Run(incident.name, func(t *testing.T) {
			tenant.begin(t, incident.name)
			incident.happen(tenant, t)
			settled := tenant.settle(t, incident.name)
			for _, target := range targets {
				expectGood(t, target, settled[target], incident.severs)
				rows = append(rows, row(incident.name, target, settled[target]))
			}
		})
	}
	tell(t, tenant.request("DELETE", "phases"))
	shared.report.add("Under load", table([]string{
		"meanwhile", "asked", "seconds", "requests", "valid refused", "invalid let through", "invalid not answered", "asked again", "p50 ms", "p99 ms", "max ms",
	}, rows), "Each is asked 100 times a second, with a good key in 8 of 10 requests, one of which is to write, which it may not. "+
		"Every seventh request is on a connection of its own; a question is *asked again* "+
		"where its connection ended with no word of it, as HTTP/2 has one. *gateway* is the client of a gateway (Caddy), *HTTP* and *gRPC* are as gateways ask.")
}

// begin begins a phase of the load.
func (n *tenant) begin(t *testing.T, phase string) {
	t.Helper()
	tell(t, n.request("POST", "phases", phase))
}

// phase returns what became of a phase so far, by target.
func (n *tenant) phase(t *testing.T, name string) map[string]load.Phase {
	t.Helper()
	report := map[string]load.Phase{}
	if err := json.Unmarshal([]byte(tell(t, n.request("GET", "phases", name))), &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// settle ends a phase after some requests more, and returns what became of it, by target, when all is answered.
func (n *tenant) settle(t *testing.T, name string) map[string]load.Phase {
	t.Helper()
	g := NewWithT(t)
	incident := n.phase(t, name)
	g.Eventually(func(g Gomega) {
		for target, phase := range n.phase(t, name) {
			g.Expect(phase.Asked).To(BeNumerically(">=", incident[target].Asked+aftermath))
		}
	}).Should(Succeed())
	n.begin(t, "between")
	var settled map[string]load.Phase
	g.Eventually(func(g Gomega) {
		settled = n.phase(t, name)
		for _, phase := range settled {
			g.Expect(phase.Open).To(BeZero())
		}
	}).Should(Succeed())
	return settled
}

func expectGood(t *testing.T, target string, phase load.Phase, severs bool) {
	t.Helper()
	if phase.Asked < aftermath {
		t.Errorf("%s: there were only %d requests", target, phase.Asked)
	}
	good := phase.Refused == 0 && phase.LetThrough == 0 && phase.Unanswered == 0
	// A gateway's own connections to its clients are its own affair.
	if !severs && target != "gateway" {
		good = good && phase.Retried == 0
	}
	if !good {
		t.Errorf("%s: of %d requests, %d valid ones were refused, %d invalid ones let through, %d invalid ones not answered, %d asked again: %v",
			target, phase.Asked, phase.Refused, phase.LetThrough, phase.Unanswered, phase.Retried, phase.Answers)
	}
	for _, problem := range phase.Problems {
		t.Logf("%s: %s: %s: %s", target, problem.Time.Format(time.StampMilli), problem.Question, problem.Answer)
	}
}

func row(incident, target string, phase load.Phase) []string {
	cells := []string{incident, target, fmt.Sprintf("%.0f", phase.End.Sub(phase.Start).Seconds())}
	for _, count := range []int{phase.Asked, phase.Refused, phase.LetThrough, phase.Unanswered, phase.Retried} {
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

// upgradeAll goes to another version of the image.
func (n *tenant) upgradeAll(t *testing.T) {
	t.Helper()
	n.applyInstaller(t, n.upgrade)
}

// restart replaces all pods of a Deployment by new ones, as people do.
func (n *tenant) restart(t *testing.T, deployment string) {
	t.Helper()
	before := n.pods(t, deployment)
	n.kubectl(t, "", "rollout", "restart", "deployment/"+deployment, "--namespace", systemNamespace)
	n.awaitOthers(t, deployment, before...)
}

// killAuthenticator deletes a pod, which has next to no time to end.
func (n *tenant) killAuthenticator(t *testing.T) {
	t.Helper()
	victim := n.pods(t, authenticators)[0]
	n.deleteAtOnce(t, victim)
	n.awaitOthers(t, authenticators, victim)
}

func (c *cluster) deleteAtOnce(t *testing.T, pod corev1.Pod) {
	t.Helper()
	c.kubectl(t, "", "delete", "pod", pod.Name, "--namespace", pod.Namespace, "--grace-period=0", "--force")
}

// pods returns the pods of a Deployment.
func (c *cluster) pods(t *testing.T, deployment string) []corev1.Pod {
	t.Helper()
	selector := "app.kubernetes.io/component=" + map[string]string{controllers: "controller", authenticators: "authenticator"}[deployment]
	pods, err := c.clients.CoreV1().Pods(systemNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// awaitOthers waits until as many pods as there are to be are ready, and these are gone.
func (c *cluster) awaitOthers(t *testing.T, deployment string, gone ...corev1.Pod) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		pods := c.pods(t, deployment)
		g.Expect(pods).To(HaveLen(replicas))
		for _, pod := range pods {
			for _, other := range gone {
				g.Expect(pod.UID).NotTo(Equal(other.UID))
			}
			g.Expect(pod.Status.Conditions).To(ContainElement(And(
				HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
		}
	}).Should(Succeed())
}

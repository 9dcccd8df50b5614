// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// usageSpan is how long the use of CPU is measured over, at least.
const usageSpan = 10 * time.Second

// usage is what the pod of a process uses, as its kubelet says.
type usage struct {
	at     time.Time
	cpu    time.Duration // since it started
	memory uint64        // working set, in bytes
}

// summary is the part that is needed of what kubelets answer at /stats/summary.
type summary struct {
	Pods []struct {
		PodRef     struct{ Name, Namespace string }
		Containers []struct {
			CPU struct {
				Time                 metav1.Time
				UsageCoreNanoSeconds uint64
			}
			Memory struct{ WorkingSetBytes uint64 }
		}
	}
}

// usages returns what all pods of apikey-operator use, by name.
func (c *cluster) usages(t *testing.T) map[string]usage {
	t.Helper()
	nodes, err := c.clients.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]usage{}
	for _, node := range nodes.Items {
		answer, err := c.clients.CoreV1().RESTClient().Get().
			Resource("nodes").Name(node.Name).SubResource("proxy").Suffix("stats", "summary").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var said summary
		if err := json.Unmarshal(answer, &said); err != nil {
			t.Fatal(err)
		}
		for _, pod := range said.Pods {
			if pod.PodRef.Namespace != systemNamespace || len(pod.Containers) != 1 {
				continue
			}
			container := pod.Containers[0]
			all[pod.PodRef.Name] = usage{
				at:     container.CPU.Time.Time,
				cpu:    time.Duration(container.CPU.UsageCoreNanoSeconds),
				memory: container.Memory.WorkingSetBytes,
			}
		}
	}
	return all
}

// usagesLater waits until the kubelet has looked at every pod again, this much later than it had before, and returns what they use then.
func (c *cluster) usagesLater(t *testing.T, before map[string]usage, span time.Duration) (after map[string]usage) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		after = c.usages(t)
		for _, deployment := range []string{controllers, authenticators} {
			for _, pod := range c.pods(t, deployment) {
				g.Expect(before).To(HaveKey(pod.Name))
				g.Expect(after).To(HaveKey(pod.Name))
				g.Expect(after[pod.Name].at.Sub(before[pod.Name].at)).To(BeNumerically(">=", span))
			}
		}
	}).Should(Succeed())
	return after
}

// measureUsage reports what each process uses from now on, for some time.
func (c *cluster) measureUsage(t *testing.T, title string) {
	t.Helper()
	var rows [][]string
	before := c.usagesLater(t, c.usages(t), 1) // what the kubelet knows already is of before
	after := c.usagesLater(t, before, usageSpan)
	leader := c.leader(t).Name
	for _, deployment := range []string{controllers, authenticators} {
		for _, pod := range c.pods(t, deployment) {
			name := deployment
			if pod.Name == leader {
				name += " (leader)"
			}
			a, b := before[pod.Name], after[pod.Name]
			rows = append(rows, []string{
				name,
				fmt.Sprintf("%.1f", (b.cpu-a.cpu).Seconds()*1000/b.at.Sub(a.at).Seconds()),
				fmt.Sprintf("%.0f", float64(b.memory)/(1<<20)),
			})
		}
	}
	c.report.add(title, table([]string{"process", "CPU, thousandths", "memory, MiB"}, rows))
}

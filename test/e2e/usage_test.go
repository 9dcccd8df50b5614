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

	"squirrel.dev/apikey-operator/test/framework"
)

// usageSpan is the minimum duration over which the CPU usage is measured.
const usageSpan = 10 * time.Second

// usage is the usage of a pod, as the kubelet reports it.
type usage struct {
	at     time.Time
	cpu    time.Duration // since the start of the container
	memory uint64        // working set, in bytes
}

// summary is a part of the kubelet's response to /stats/summary.
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

// usages returns the usage of all pods of apikey-operator, by name.
func (c *cluster) usages(t *testing.T) map[string]usage {
	t.Helper()
	nodes, err := c.clients.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	framework.Must(t, err)
	all := map[string]usage{}
	for _, node := range nodes.Items {
		body, err := c.clients.CoreV1().RESTClient().Get().
			Resource("nodes").Name(node.Name).SubResource("proxy").Suffix("stats", "summary").DoRaw(t.Context())
		framework.Must(t, err)
		var stats summary
		framework.Must(t, json.Unmarshal(body, &stats))
		for _, pod := range stats.Pods {
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

// usagesLater waits until the kubelet has new measurements of every pod, at least span after those before, and returns them.
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

// measureUsage adds the usage of each process over the next seconds to the report.
func (c *cluster) measureUsage(t *testing.T, title string) {
	t.Helper()
	var rows [][]string
	before := c.usagesLater(t, c.usages(t), 1) // the last measurements of the kubelet are older
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
	c.report.add(title, table([]string{"process", "CPU, millicores", "memory, MiB"}, rows))
}

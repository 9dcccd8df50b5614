// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
)

const (
	leaseName   = "controller.keys.squirrel.dev"
	appliedKeys = 500
)

// killLeaderWhileApplying applies keys in a namespace of their own, kills the leader when it has issued some of them, and expects that
// each key gets exactly one token.
func (n *tenant) killLeaderWhileApplying(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	namespace := n.cluster.namespace(t)
	history := n.watchTokens(t, namespace)
	applied := make(chan error, 1)
	go func() {
		_, err := n.client.Run(t.Context(), keysManifest(namespace, appliedKeys), "apply", "--filename", "-")
		applied <- err
	}()
	g.Eventually(history.issued).Should(BeNumerically(">=", appliedKeys/10))
	leader := n.leader(t)
	n.kill(t, leader)
	killed := time.Now()
	t.Logf("the leader was killed when %d of %d keys were issued", history.issued(), appliedKeys)
	g.Expect(<-applied).To(Succeed())
	g.Eventually(history.issued).Should(Equal(appliedKeys))
	n.report.add("Leader killed while keys are applied", fmt.Sprintf("All %d keys were issued %.0f s after the kill.", appliedKeys, time.Since(killed).Seconds()))
	n.expectOneTokenEach(t, namespace)
	n.awaitReady(t, n.operator)
}

func keysManifest(namespace string, count int) string {
	var manifest strings.Builder
	for i := range count {
		fmt.Fprintf(&manifest, `---
apiVersion: keys.squirrel.dev/v1alpha1
kind: APIKey
metadata: {name: key-%d, namespace: %s}
spec: {appName: App %[1]d, readAccess: true}
`, i, namespace)
	}
	return manifest.String()
}

// history is what the keys of a namespace were seen with.
type history struct {
	mu     sync.Mutex
	tokens map[string][]v1alpha1.TokenRecord // of each key, every one that was seen
	ready  map[string]bool
}

// watchTokens watches the keys of a namespace until the test ends.
func (c *cluster) watchTokens(t *testing.T, namespace string) *history {
	t.Helper()
	h := &history{tokens: map[string][]v1alpha1.TokenRecord{}, ready: map[string]bool{}}
	watching, err := c.api.Watch(t.Context(), &v1alpha1.APIKeyList{}, client.InNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range watching.ResultChan() {
			if key, isKey := event.Object.(*v1alpha1.APIKey); isKey && event.Type != watch.Deleted {
				h.see(t, key)
			}
		}
	}()
	t.Cleanup(func() {
		watching.Stop()
		<-ended
	})
	return h
}

func (h *history) see(t *testing.T, key *v1alpha1.APIKey) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := h.tokens[key.Name]
	if len(key.Status.Tokens) > 1 {
		t.Errorf("%s has %d tokens", key.Name, len(key.Status.Tokens))
	}
	for _, now := range key.Status.Tokens {
		if len(seen) > 0 {
			last := seen[len(seen)-1]
			if last.NotBefore != nil && now.Hash != last.Hash {
				t.Errorf("%s had a token that counted, and got another one", key.Name)
			}
		}
		h.tokens[key.Name] = append(seen, now)
	}
	h.ready[key.Name] = meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)
}

// issued is how many keys are ready.
func (h *history) issued() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := 0
	for _, ready := range h.ready {
		if ready {
			count++
		}
	}
	return count
}

// expectOneTokenEach expects that every key has one token, which its Secret holds.
func (c *cluster) expectOneTokenEach(t *testing.T, namespace string) {
	t.Helper()
	g := NewWithT(t)
	keys, secrets := &v1alpha1.APIKeyList{}, &corev1.SecretList{}
	g.Expect(c.api.List(t.Context(), keys, client.InNamespace(namespace))).To(Succeed())
	g.Expect(c.api.List(t.Context(), secrets, client.InNamespace(namespace))).To(Succeed())
	g.Expect(keys.Items).To(HaveLen(appliedKeys))
	handedOver := map[string]string{}
	for _, secret := range secrets.Items {
		if secret.Type == v1alpha1.SecretTypeToken {
			handedOver[secret.Name] = token.Hash(string(secret.Data["token"]))
		}
	}
	g.Expect(handedOver).To(HaveLen(appliedKeys))
	for _, key := range keys.Items {
		if len(key.Status.Tokens) != 1 || key.Status.Tokens[0].Hash != handedOver[key.Status.SecretName] {
			t.Errorf("%s has the tokens %v, and its Secret another one", key.Name, key.Status.Tokens)
		}
	}
}

// leader returns the pod that leads.
func (c *cluster) leader(t *testing.T) corev1.Pod {
	t.Helper()
	lease, err := c.clients.CoordinationV1().Leases(systemNamespace).Get(t.Context(), leaseName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	pod, err := c.clients.CoreV1().Pods(systemNamespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return *pod
}

// kill ends the process of a pod by SIGKILL. On a cluster that is not our own, which lets nobody at its processes, the pod is deleted
// with next to no time to end.
func (c *cluster) kill(t *testing.T, pod corev1.Pod) {
	t.Helper()
	if c.node == nil {
		c.deleteAtOnce(t, pod)
		return
	}
	if err := c.node.KillPod(string(pod.UID), "/apikey-operator"); err != nil {
		t.Fatal(err)
	}
}

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
	"squirrel.dev/apikey-operator/test/framework"
)

const (
	leaseName   = "controller.keys.squirrel.dev"
	appliedKeys = 500
)

// killLeaderWhileApplying applies keys in a new namespace, and kills the leader when it has issued some of them. Each key must get exactly
// one token.
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

// history is what a watch has seen of the keys of a namespace.
type history struct {
	mu     sync.Mutex
	tokens map[string][]v1alpha1.TokenRecord // all tokens of each key
	ready  map[string]bool
}

// watchTokens watches the keys of a namespace until the test ends.
func (c *cluster) watchTokens(t *testing.T, namespace string) *history {
	t.Helper()
	h := &history{tokens: map[string][]v1alpha1.TokenRecord{}, ready: map[string]bool{}}
	watcher, err := c.api.Watch(t.Context(), &v1alpha1.APIKeyList{}, client.InNamespace(namespace))
	framework.Must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range watcher.ResultChan() {
			if key, isKey := event.Object.(*v1alpha1.APIKey); isKey && event.Type != watch.Deleted {
				h.record(t, key)
			}
		}
	}()
	t.Cleanup(func() {
		watcher.Stop()
		<-ended
	})
	return h
}

func (h *history) record(t *testing.T, key *v1alpha1.APIKey) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := h.tokens[key.Name]
	if len(key.Status.Tokens) > 1 {
		t.Errorf("%s: got %d tokens, want 1", key.Name, len(key.Status.Tokens))
	}
	for _, current := range key.Status.Tokens {
		if len(seen) > 0 {
			last := seen[len(seen)-1]
			if last.NotBefore != nil && current.Hash != last.Hash {
				t.Errorf("%s was issued, and got another token", key.Name)
			}
		}
		h.tokens[key.Name] = append(seen, current)
	}
	h.ready[key.Name] = meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady)
}

// issued returns how many keys are ready.
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

// expectOneTokenEach expects that every key has one token, and that its Secret has the same.
func (c *cluster) expectOneTokenEach(t *testing.T, namespace string) {
	t.Helper()
	g := NewWithT(t)
	keys, secrets := &v1alpha1.APIKeyList{}, &corev1.SecretList{}
	g.Expect(c.api.List(t.Context(), keys, client.InNamespace(namespace))).To(Succeed())
	g.Expect(c.api.List(t.Context(), secrets, client.InNamespace(namespace))).To(Succeed())
	g.Expect(keys.Items).To(HaveLen(appliedKeys))
	hashes := map[string]string{}
	for _, secret := range secrets.Items {
		if secret.Type == v1alpha1.SecretTypeToken {
			hashes[secret.Name] = token.Hash(string(secret.Data["token"]))
		}
	}
	g.Expect(hashes).To(HaveLen(appliedKeys))
	for _, key := range keys.Items {
		if len(key.Status.Tokens) != 1 || key.Status.Tokens[0].Hash != hashes[key.Status.SecretName] {
			t.Errorf("%s: got the tokens %v, want the one in its Secret", key.Name, key.Status.Tokens)
		}
	}
}

// leader returns the pod of the leader.
func (c *cluster) leader(t *testing.T) corev1.Pod {
	t.Helper()
	lease, err := c.clients.CoordinationV1().Leases(systemNamespace).Get(t.Context(), leaseName, metav1.GetOptions{})
	framework.Must(t, err)
	name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	pod, err := c.clients.CoreV1().Pods(systemNamespace).Get(t.Context(), name, metav1.GetOptions{})
	framework.Must(t, err)
	return *pod
}

// kill kills the process of a pod by SIGKILL. On an existing cluster, where the test has no access to processes, it force-deletes the pod.
func (c *cluster) kill(t *testing.T, pod corev1.Pod) {
	t.Helper()
	if c.node == nil {
		c.forceDelete(t, pod)
		return
	}
	framework.Must(t, c.node.KillPod(string(pod.UID), "/apikey-operator"))
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
)

// rotateTokenTwice rotates the token of the client twice, and waits each time until its mounted Secret has the new one.
func (n *tenant) rotateTokenTwice(t *testing.T) {
	t.Helper()
	for range 2 {
		start := time.Now()
		before := n.requestRotation(t)
		after := n.awaitMountedToken(t, before)
		NewWithT(t).Expect(hashes(after)).To(Equal(append([]string{after.Status.Tokens[0].Hash}, hashes(before)...)))
		t.Logf("the mounted Secret has the new token after %s", time.Since(start).Round(100*time.Millisecond))
	}
}

// killLeaderWhileRotating kills the leader between the claim of a new token and its handover. The next leader mints another one.
func (n *tenant) killLeaderWhileRotating(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	leader := n.leader(t)
	before := n.requestRotation(t)
	var lost string
	g.Eventually(func(g Gomega) {
		claim := apikey.ClaimOf(n.clientKey(t))
		g.Expect(claim).NotTo(BeNil())
		lost = claim.Hash
	}).WithPolling(pollInterval / 10).Should(Succeed())
	n.kill(t, leader)
	start := time.Now()
	after := n.awaitMountedToken(t, before)
	former := hashes(before)
	want := append([]string{after.Status.Tokens[0].Hash, former[0], lost}, former[1:]...)
	g.Expect(hashes(after)).To(ConsistOf(want), "the token of the leader that was killed is superseded")
	g.Expect(after.Status.Tokens[0].Hash).NotTo(Equal(lost))
	n.report.add("Leader killed during a rotation",
		fmt.Sprintf("The mounted Secret has the new token %.0f s after the kill.", time.Since(start).Seconds()))
	n.awaitReady(t, n.operator)
}

// requestRotation requests a rotation of the client's token, and returns the key before it.
func (n *tenant) requestRotation(t *testing.T) (before *v1alpha1.APIKey) {
	t.Helper()
	before = n.clientKey(t)
	patch := fmt.Sprintf(`{"spec":{"rotation":{"request":{"at":%q}}}}`, time.Now().UTC().Format(time.RFC3339))
	NewWithT(t).Expect(n.api.Patch(t.Context(), before.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	return before
}

// awaitMountedToken waits until the rotation is finished, and the client reads the new token from its file. The pod is the same one, and
// was not restarted. It returns the key.
func (n *tenant) awaitMountedToken(t *testing.T, before *v1alpha1.APIKey) (after *v1alpha1.APIKey) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		after = n.clientKey(t)
		g.Expect(after.Status.Tokens[0].Hash).NotTo(Equal(before.Status.Tokens[0].Hash))
		g.Expect(apikey.ClaimOf(after)).To(BeNil())
		g.Expect(do(t, n.clientRequest("GET", "token-hash"))).To(Equal(after.Status.Tokens[0].Hash))
	}).Should(Succeed())
	return after
}

// clientKey returns the key of the client.
func (n *tenant) clientKey(t *testing.T) *v1alpha1.APIKey {
	t.Helper()
	key := n.keys(t)["client"]
	return &key
}

// hashes returns the hashes of the tokens of a key, newest first.
func hashes(key *v1alpha1.APIKey) (all []string) {
	for _, record := range key.Status.Tokens {
		all = append(all, record.Hash)
	}
	return all
}

// lastUseBound is how long it may take until a use is recorded: a minute until the authenticator's minute ends, and one until the controller
// collects it.
const lastUseBound = 3 * time.Minute

// lastUse waits for the first record of a use of the client's token.
type lastUse struct {
	start    time.Time
	recorded chan use
}

// use is a record of a use, and when it was seen.
type use struct{ at, seen time.Time }

// watchLastUse begins to wait for the first record of a use. The token was not used before.
func (n *tenant) watchLastUse(t *testing.T) *lastUse {
	t.Helper()
	NewWithT(t).Expect(n.clientKey(t).Status.Tokens).To(HaveExactElements(HaveField("LastUsedAt", BeNil())))
	u := &lastUse{start: time.Now(), recorded: make(chan use, 1)}
	watcher, err := n.api.Watch(t.Context(), &v1alpha1.APIKeyList{}, client.InNamespace(n.namespace))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(watcher.Stop)
	go func() {
		for event := range watcher.ResultChan() {
			key, isKey := event.Object.(*v1alpha1.APIKey)
			if !isKey || key.Name != "client" {
				continue
			}
			for _, record := range key.Status.Tokens {
				if record.LastUsedAt != nil {
					u.recorded <- use{at: record.LastUsedAt.Time, seen: time.Now()}
					return
				}
			}
		}
	}()
	return u
}

// expect expects that the use is recorded in time, with a time at which the client sent requests, at the resolution of a minute.
func (u *lastUse) expect(t *testing.T) {
	g := NewWithT(t)
	var recorded use
	g.Eventually(u.recorded).WithTimeout(max(time.Second, time.Until(u.start.Add(lastUseBound)))).Should(Receive(&recorded))
	g.Expect(recorded.seen.Sub(u.start)).To(BeNumerically("<", lastUseBound))
	g.Expect(recorded.at).To(And(BeTemporally(">", u.start.Add(-time.Minute)), BeTemporally("<=", recorded.seen)))
	shared.report.add("Last use", fmt.Sprintf("The first use of a token was recorded %.0f s after its first request.", recorded.seen.Sub(u.start).Seconds()))
}

// TestUsage_IsForTheControllerAlone requests the last uses from a pod that is not the controller. If the cluster enforces NetworkPolicies, it
// gets no connection.
func TestUsage_IsForTheControllerAlone(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	tenant := shared.tenant(t)
	const refusal = `401 {"errorCode":401,"errorMessage":"This report is for the controller: ` +
		`send a ServiceAccount token of the audience apikey-usage as a bearer token.","payload":null}`
	for _, pod := range shared.pods(t, authenticators) {
		response := do(t, tenant.clientRequest("GET", "usage").Param("address", pod.Status.PodIP+":8444"))
		g.Expect(response).To(Or(Equal(refusal), And(HavePrefix("no response: "), ContainSubstring("Client.Timeout exceeded"))))
	}
}

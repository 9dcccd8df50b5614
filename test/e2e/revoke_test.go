// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/e2e/load"
)

const (
	revocations = 200

	// revocationBound is how long a replica may go on accepting a key that was deactivated.
	revocationBound = 2 * time.Second
)

// TestInvariant5_EveryReplicaRefusesADeactivatedKeySoon deactivates keys one by one, by the request that `kubectl patch` makes, while a
// pod asks every replica by itself.
func TestInvariant5_EveryReplicaRefusesADeactivatedKeySoon(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	tenant := shared.tenant(t)
	pods := shared.pods(t, authenticators)
	g.Expect(pods).To(HaveLen(replicas))
	keys := make([]v1alpha1.APIKey, revocations)
	tokens := make([]string, revocations)
	for i := range keys {
		tokens[i] = token.New()
		keys[i] = v1alpha1.APIKey{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant.namespace, Name: fmt.Sprintf("key-%d", i)},
			Spec:       v1alpha1.APIKeySpec{AppName: fmt.Sprintf("App %d", i), ReadAccess: true, TokenHash: token.Hash(tokens[i])},
		}
		g.Expect(shared.api.Create(t.Context(), &keys[i])).To(Succeed())
	}
	shared.kubectl(t, "", "wait", "apikey", "--all", "--namespace", tenant.namespace, "--for=condition=Active", "--timeout", timeout.String())
	var atOne, atAll []time.Duration
	for i := range keys {
		times := tenant.timeRevocation(t, &keys[i], tokens[i], pods)
		atOne = append(atOne, times...)
		atAll = append(atAll, slices.Max(times))
	}
	rows := [][]string{}
	for _, by := range []struct {
		whom  string
		times []time.Duration
	}{{"one replica", atOne}, {"all replicas", atAll}} {
		p50, p99, longest := load.Quantiles(by.times)
		g.Expect(longest).To(BeNumerically("<", revocationBound))
		rows = append(rows, []string{by.whom, milliseconds(p50), milliseconds(p99), milliseconds(longest)})
	}
	shared.report.add("Deactivating a key", table([]string{"refused by", "p50 ms", "p99 ms", "max ms"}, rows), fmt.Sprintf(
		"From when the patch of `spec.active` is sent until the first 401, over %d keys one by one. A pod asks each of the %d replicas all the time.",
		revocations, replicas))
}

// timeRevocation deactivates a key, and returns how long each replica took to refuse it.
func (n *tenant) timeRevocation(t *testing.T, key *v1alpha1.APIKey, keyToken string, pods []corev1.Pod) []time.Duration {
	t.Helper()
	times := make([]time.Duration, len(pods))
	var asking sync.WaitGroup
	start := time.Now()
	for i, pod := range pods {
		asking.Go(func() {
			_, err := n.request("GET", "refused").Param("address", pod.Status.PodIP+":8443").SetHeader("X-API-Key", keyToken).
				Timeout(timeout).DoRaw(t.Context())
			times[i] = time.Since(start)
			if err != nil {
				t.Errorf("%s does not refuse %s: %v", pod.Name, key.Name, err)
			}
		})
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"active":false}}`))
	if err := n.api.Patch(t.Context(), key, patch); err != nil {
		t.Error(err)
	}
	asking.Wait()
	return times
}

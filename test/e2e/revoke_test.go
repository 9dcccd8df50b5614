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
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/test/e2e/load"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	revocations = 200

	// revocationBound is how long a replica may accept a deactivated key.
	revocationBound = 2 * time.Second
)

// TestInvariant5_EveryReplicaRefusesADeactivatedKeySoon deactivates keys one by one, with the request that `kubectl patch` sends, while a
// pod sends checks to every replica.
func TestInvariant5_EveryReplicaRefusesADeactivatedKeySoon(t *testing.T) {
	g := NewWithT(t)
	shared.install(t)
	tenant := shared.tenant(t)
	pods := shared.pods(t, authenticators)
	g.Expect(pods).To(HaveLen(replicas))
	keys := make([]*v1alpha1.APIKey, revocations)
	tokens := make([]string, revocations)
	for i := range keys {
		tokens[i] = token.New()
		keys[i] = testenv.NewKey(tenant.namespace, fmt.Sprintf("key-%d", i), func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash(tokens[i]) })
		g.Expect(shared.api.Create(t.Context(), keys[i])).To(Succeed())
	}
	shared.kubectl(t, "", "wait", "apikey", "--all", "--namespace", tenant.namespace, "--for=condition=Active", "--timeout", timeout.String())
	var single, slowest []time.Duration
	for i := range keys {
		times := tenant.timeRevocation(t, keys[i], tokens[i], pods)
		single = append(single, times...)
		slowest = append(slowest, slices.Max(times))
	}
	rows := [][]string{}
	for _, by := range []struct {
		name  string
		times []time.Duration
	}{{"one replica", single}, {"all replicas", slowest}} {
		p50, p99, longest := load.Quantiles(by.times)
		g.Expect(longest).To(BeNumerically("<", revocationBound))
		rows = append(rows, []string{by.name, milliseconds(p50), milliseconds(p99), milliseconds(longest)})
	}
	shared.report.add("Deactivating a key", table([]string{"refused by", "p50 ms", "p99 ms", "max ms"}, rows), fmt.Sprintf(
		"From the patch of `spec.active` to the first 401, of %d keys, one by one. A pod sends checks to each of the %d replicas without a pause.",
		revocations, replicas))
}

// timeRevocation deactivates a key, and returns how long each replica took to refuse it.
func (n *tenant) timeRevocation(t *testing.T, key *v1alpha1.APIKey, keyToken string, pods []corev1.Pod) []time.Duration {
	t.Helper()
	times := make([]time.Duration, len(pods))
	var checking sync.WaitGroup
	start := time.Now()
	for i, pod := range pods {
		checking.Go(func() {
			_, err := n.clientRequest("GET", "refused").Param("address", pod.Status.PodIP+":8443").SetHeader("X-API-Key", keyToken).
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
	checking.Wait()
	return times
}

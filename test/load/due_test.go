// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build load

package load_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/operator"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// dueNamespaces is the number of namespaces of the keys that are due at once.
	dueNamespaces = 10

	// lateAfter is the delay of a rotation after which the alert APIKeyRotationLate fires.
	lateAfter = 15 * time.Minute

	// rotateAllWithin bounds the time until all keys that are due at once are rotated.
	rotateAllWithin = 5 * time.Minute
)

// TestInvariant10_NewKeysAreIssuedWhileVeryManyRotationsAreDue creates new keys while the intervals of very many issued keys end in the same
// second. All are rotated, and each of them once.
func TestInvariant10_NewKeysAreIssuedWhileVeryManyRotationsAreDue(t *testing.T) {
	env := testenv.Start(t)
	controller := startController(t, env)
	dueCount := *count / 2
	due := time.Now().Add(time.Duration(dueCount)*2*time.Millisecond + 5*time.Second).Truncate(time.Second)
	namespaces := make([]string, dueNamespaces)
	for i := range namespaces {
		namespaces[i] = env.Namespace(t)
		storeDue(testenv.NewFixture(t, env), namespaces[i], due, dueCount/dueNamespaces)
	}
	t.Logf("stored %d issued keys, %s before they are due", dueCount, time.Until(due).Round(100*time.Millisecond))
	if early := controller.Metric("apikey_rotated_total"); early != 0 {
		t.Fatalf("%.0f keys were rotated before they are due", early)
	}
	framework.EventuallyWithin(t, time.Minute, framework.PollInterval, "the rotations are due", func() bool { return !time.Now().Before(due) })

	expectNewKeysInTime(testenv.NewFixture(t, env))
	t.Logf("%s after the rotations were due, %.0f keys were rotated",
		time.Since(due).Round(100*time.Millisecond), controller.Metric("apikey_rotated_total"))

	delays := awaitRotations(t, controller, due)
	finished := time.Since(due)
	t.Logf("rotated %d keys within %s: %.1f per second; the delay in the metric was at most %s", dueCount, finished.Round(100*time.Millisecond),
		float64(dueCount)/finished.Seconds(), slices.Max(delays).Round(100*time.Millisecond))
	if reissued := controller.Metric("apikey_reissued_total"); reissued != 0 {
		t.Errorf("%.0f tokens were minted again, because their handover came too late", reissued)
	}
	for _, namespace := range namespaces {
		expectRotatedOnce(t, env, namespace)
	}
}

// storeDue stores issued keys whose interval ends at a time. The API server would take minutes to create them all, so that the controller
// issues a template, and copies of it are written to etcd. The template is not due.
func storeDue(f *testenv.Fixture, namespace string, due time.Time, count int) {
	f.Helper()
	const interval = 24 * time.Hour
	f.Namespace = namespace
	f.CreateKey("template", func(key *v1alpha1.APIKey) {
		key.Spec.Rotation = &v1alpha1.Rotation{Overlap: &metav1.Duration{Duration: time.Hour}, Interval: &metav1.Duration{Duration: interval}}
	})
	template := f.WaitForReady("template", v1alpha1.ReasonIssued)
	stored := f.Env.ReadEtcd(f, testenv.EtcdKey(namespace, "template"))
	newest := apikey.NewestToken(template)
	format := func(at time.Time) string { return at.UTC().Format(time.RFC3339) }
	f.Env.WriteEtcd(f, func(yield func(key, value string) bool) {
		for i := range count {
			name := fmt.Sprintf("key-%06d", i)
			value := strings.NewReplacer(
				`"name":"template"`, `"name":"`+name+`"`, "App template", "App "+name, "template-token", name+"-token",
				string(template.UID), string(uuid.NewUUID()), newest.Hash, token.Hash(namespace+name),
				`"notBefore":"`+format(newest.NotBefore.Time), `"notBefore":"`+format(due.Add(-interval)),
				`"nextRotationAt":"`+format(template.Status.NextRotationAt.Time), `"nextRotationAt":"`+format(due),
			).Replace(stored)
			if !yield(testenv.EtcdKey(namespace, name), value) {
				return
			}
		}
	})
}

// awaitRotations waits until no rotation is due any more according to the metric, and returns its values. A value may not be larger than
// the real delay, and while rotations wait it may not be much smaller. The counter of rotations would not do: it misses a rotation whose
// last status write has no response.
func awaitRotations(t *testing.T, controller *operator.Built, due time.Time) (delays []time.Duration) {
	t.Helper()
	const accuracy = 15 * time.Second
	framework.EventuallyWithin(t, rotateAllWithin, time.Second, "no rotation is due", func() bool {
		atLeast := time.Since(due) - accuracy
		delay := time.Duration(controller.Metric("apikey_rotation_delay_seconds") * float64(time.Second))
		if atMost := time.Since(due); delay > atMost || (delay != 0 && delay < atLeast) {
			t.Fatalf("apikey_rotation_delay_seconds: got %s, want from %s to %s", delay, atLeast, atMost)
		}
		delays = append(delays, delay)
		last := delays[max(0, len(delays)-3):]
		return atLeast > 0 && slices.Max(last) == 0 // for some seconds: all of those that have started may be finished
	})
	if longest := slices.Max(delays); longest >= lateAfter {
		t.Errorf("the alert APIKeyRotationLate would fire: the delay was %s", longest)
	}
	return delays
}

// expectRotatedOnce expects that each key of a namespace except the template has a newest token and the former one, and is ready.
func expectRotatedOnce(t *testing.T, env *testenv.Env, namespace string) {
	t.Helper()
	keys := &v1alpha1.APIKeyList{}
	framework.Must(t, env.Client.List(t.Context(), keys, client.InNamespace(namespace)))
	for _, key := range keys.Items {
		if key.Name == "template" {
			continue
		}
		tokens := key.Status.Tokens
		if len(tokens) != 2 || tokens[0].NotAfter != nil || apikey.ClaimOf(&key) != nil ||
			tokens[1].Hash != token.Hash(namespace+key.Name) || tokens[1].NotAfter == nil ||
			!meta.IsStatusConditionTrue(key.Status.Conditions, v1alpha1.ConditionReady) {
			t.Fatalf("%s was not rotated exactly once: %+v", key.Name, key.Status)
		}
	}
}

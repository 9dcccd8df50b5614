// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build load

// Package load_test measures how fast the controller issues new keys while it has very many others to process, and tests rotations under
// load: `make test-load`.
package load_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// bound is how long the controller may take to issue 95 % of the new keys, however many others it has to process. The machine may delay
	// the rest.
	bound = 2 * time.Second

	// newKeys is the number of new keys.
	newKeys = 50
)

var count = flag.Int("keys", 10_000, "number of keys in each state; half as many are rotated at once")

func TestMain(m *testing.M) { testenv.Main(m) }

// states are those of the stored keys, by the name of their namespace. The app names differ, unless a state changes them.
var states = map[string]func(key *v1alpha1.APIKey){
	"created":  func(*v1alpha1.APIKey) {},
	"idle":     issued,
	"one-name": func(key *v1alpha1.APIKey) { key.Spec.AppName = "The Same" },
	"one-hash": func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash("the same") },
	"refused":  func(*v1alpha1.APIKey) {},
	"refused-by-now": func(key *v1alpha1.APIKey) {
		stalled(key, v1alpha1.ReasonSecretRefused)
	},
	"claimed": func(key *v1alpha1.APIKey) {
		key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("template"), ClaimedAt: new(metav1.Now())}}
	},
	"deactivated": func(key *v1alpha1.APIKey) {
		issued(key)
		key.Spec.Active = new(false)
	},
	"expired": func(key *v1alpha1.APIKey) {
		issued(key)
		key.Spec.ExpiresAt = new(metav1.NewTime(time.Now().Add(-time.Minute)))
	},
	"due": func(key *v1alpha1.APIKey) {
		issued(key)
		key.Status.Tokens[0].NotBefore = new(metav1.NewTime(time.Now().Add(-time.Hour)))
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Minute}}
	},
}

func issued(key *v1alpha1.APIKey) {
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("template"), NotBefore: new(metav1.Now())}}
	key.Status.SecretName = key.Name + "-token"
}

func stalled(key *v1alpha1.APIKey, reason string) {
	for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionActive, v1alpha1.ConditionStalled} {
		key.Status.Conditions = append(key.Status.Conditions, metav1.Condition{
			Type: condition, Status: metav1.ConditionTrue, Reason: reason, Message: "Forbidden.", LastTransitionTime: metav1.Now(),
		})
	}
	key.Status.Conditions[0].Status, key.Status.Conditions[1].Status = metav1.ConditionFalse, metav1.ConditionFalse
}

// TestInvariant10_NewKeysAreIssuedWhileVeryManyOthersWait starts the controller when all keys are stored, so that all are in its queue.
func TestInvariant10_NewKeysAreIssuedWhileVeryManyOthersWait(t *testing.T) {
	env := testenv.Start(t, "--request-timeout=10m") // on a busy machine a list takes longer than a minute
	started := time.Now()
	for _, state := range slices.Sorted(maps.Keys(states)) {
		framework.Must(t, env.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: state}}))
		if strings.HasPrefix(state, "refused") {
			refuseSecrets(t, env, state)
		}
		populate(t, env, state, *count)
	}
	t.Logf("stored %d keys of each of %d states in %s", *count, len(states), time.Since(started).Round(time.Second))

	f := testenv.NewFixture(t, env)
	started = time.Now()
	runcontroller.Start(t, env, metav1.NamespaceAll)
	issue(f, "first") // once the controller has listed all keys
	t.Logf("the controller issued the first key after %s", time.Since(started).Round(time.Second))
	expectNewKeysInTime(f)
}

// expectNewKeysInTime issues new keys one after the other, and fails the test if 5 % of them take too long.
func expectNewKeysInTime(f *testenv.Fixture) {
	f.Helper()
	var took []time.Duration
	for i := range newKeys {
		took = append(took, issue(f, fmt.Sprint("new-", i)))
	}
	slices.Sort(took)
	f.Logf("issued %d new keys: median %s, maximum %s", newKeys, quantile(took, 0.5), quantile(took, 1))
	if usual := quantile(took, 0.95); usual > bound {
		f.Errorf("issuing 95 %% of the new keys took up to %s, want at most %s: %s", usual, bound, took)
	}
}

// issue creates a key, waits until it is issued, and returns how long that took.
func issue(f *testenv.Fixture, name string) time.Duration {
	f.Helper()
	started := time.Now()
	f.CreateKey(name)
	framework.EventuallyWithin(f, 2*time.Minute, framework.PollInterval, name+" is issued", func() bool { return apikey.IsIssued(f.GetKey(name)) })
	return time.Since(started)
}

// refuseSecrets creates a quota of no Secrets in a namespace.
func refuseSecrets(t *testing.T, env *testenv.Env, namespace string) {
	t.Helper()
	none := corev1.ResourceList{"count/secrets": resource.MustParse("0")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}
	framework.Must(t, env.Client.Create(t.Context(), quota))
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	framework.Must(t, env.Client.Status().Update(t.Context(), quota))
}

// populate stores keys of one state. The API server would take minutes to create them all, so it creates a template, and copies of what it
// stored for that are written to etcd.
func populate(t *testing.T, env *testenv.Env, state string, count int) {
	t.Helper()
	template := testenv.NewKey(state, "template", states[state])
	status := template.Status.DeepCopy()
	framework.Must(t, env.Client.Create(t.Context(), template))
	template.Status = *status
	framework.Must(t, env.Client.Status().Update(t.Context(), template))
	stored := env.ReadEtcd(t, testenv.EtcdKey(state, template.Name))
	env.WriteEtcd(t, func(yield func(key, value string) bool) {
		for i := range count {
			name := fmt.Sprintf("key-%06d", i)
			value := strings.NewReplacer(`"name":"template"`, `"name":"`+name+`"`, "App template", "App "+name, "template-token", name+"-token",
				string(template.UID), string(uuid.NewUUID()), token.Hash("template"), token.Hash(state+name)).Replace(stored)
			if !yield(testenv.EtcdKey(state, name), value) {
				return
			}
		}
	})
}

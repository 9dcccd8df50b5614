// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build load

// Package load_test has very many keys wait in each way, and creates one more: `make test-load`.
package load_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/apikey"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

const (
	// bound is how long a new key may take, however many others wait.
	bound = 2 * time.Second

	// observed is how long new keys are created while the controller works on the others.
	observed = 40 * time.Second
)

var count = flag.Int("keys", 10_000, "how many keys wait in each way")

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	testenv.Main(m)
}

// ways are those in which keys wait. Each has a namespace, and each key an app name that no other key has, unless it is changed.
var ways = map[string]func(key *v1alpha1.APIKey){
	"created":  func(*v1alpha1.APIKey) {},
	"idle":     issued,
	"one-name": func(key *v1alpha1.APIKey) { key.Spec.AppName = "The Same" },
	"one-hash": func(key *v1alpha1.APIKey) { key.Spec.TokenHash = token.Hash("the same") },
	"refused":  func(*v1alpha1.APIKey) {},
	"refused-by-now": func(key *v1alpha1.APIKey) {
		stalled(key, v1alpha1.ReasonSecretRefused)
	},
	"claimed": func(key *v1alpha1.APIKey) {
		key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("form"), ClaimedAt: new(metav1.Now())}}
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
	key.Status.Tokens = []v1alpha1.TokenRecord{{Hash: token.Hash("form"), NotBefore: new(metav1.Now())}}
	key.Status.SecretName = key.Name + "-token"
}

func stalled(key *v1alpha1.APIKey, reason string) {
	for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionActive, v1alpha1.ConditionStalled} {
		key.Status.Conditions = append(key.Status.Conditions, metav1.Condition{
			Type: condition, Status: metav1.ConditionTrue, Reason: reason, Message: "no", LastTransitionTime: metav1.Now(),
		})
	}
	key.Status.Conditions[0].Status, key.Status.Conditions[1].Status = metav1.ConditionFalse, metav1.ConditionFalse
}

// TestInvariant10_ANewKeyIsIssuedBesideAnyNumberThatWait starts the controller when all keys are there: it has all of them to do at once.
func TestInvariant10_ANewKeyIsIssuedBesideAnyNumberThatWait(t *testing.T) {
	env := testenv.Start(t, "--request-timeout=10m") // a busy machine takes longer than a minute to list them
	started := time.Now()
	for _, way := range slices.Sorted(maps.Keys(ways)) {
		framework.Must(t, env.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: way}}))
		if strings.HasPrefix(way, "refused") {
			refuseSecrets(t, env, way)
		}
		populate(t, env, way, *count)
	}
	t.Logf("%d keys of each of %d kinds were stored in %s", *count, len(ways), time.Since(started).Round(time.Second))

	namespace := env.Namespace(t)
	started = time.Now()
	runcontroller.Start(t, env, metav1.NamespaceAll)
	issue(t, env, namespace, "first") // when the controller has read all keys
	t.Logf("the controller issued a key after %s", time.Since(started).Round(time.Second))
	started = time.Now()
	var took []time.Duration
	for i := 0; time.Since(started) < observed || i < 20; i++ {
		took = append(took, issue(t, env, namespace, fmt.Sprint("new-", i)))
	}
	slices.Sort(took)
	t.Logf("%d new keys were issued: median %s, longest %s", len(took), took[len(took)/2], took[len(took)-1])
	if slices.Max(took) > bound {
		t.Errorf("new keys took up to %s, want %s at most: %s", slices.Max(took), bound, took)
	}
}

// issue creates a key and returns how long it took to be issued.
func issue(t *testing.T, env *testenv.Env, namespace, name string) time.Duration {
	t.Helper()
	key := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.APIKeySpec{AppName: "App " + name, ReadAccess: true},
	}
	started := time.Now()
	framework.Must(t, env.Client.Create(t.Context(), key))
	framework.EventuallyWithin(t, 2*time.Minute, 20*time.Millisecond, name+" is issued", func() bool {
		framework.Must(t, env.Client.Get(t.Context(), client.ObjectKeyFromObject(key), key))
		return apikey.IsIssued(key)
	})
	return time.Since(started)
}

// refuseSecrets has a quota refuse all Secrets of a namespace.
func refuseSecrets(t *testing.T, env *testenv.Env, namespace string) {
	t.Helper()
	none := corev1.ResourceList{"count/secrets": resource.MustParse("0")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}
	framework.Must(t, env.Client.Create(t.Context(), quota))
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	framework.Must(t, env.Client.Status().Update(t.Context(), quota))
}

// populate stores keys in etcd as the API server stores one that it is given: it would take minutes to be given them all.
func populate(t *testing.T, env *testenv.Env, way string, count int) {
	t.Helper()
	form := &v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: way, Name: "form"}, Spec: v1alpha1.APIKeySpec{AppName: "App form", ReadAccess: true},
	}
	ways[way](form)
	recorded := form.Status.DeepCopy()
	framework.Must(t, env.Client.Create(t.Context(), form))
	form.Status = *recorded
	framework.Must(t, env.Client.Status().Update(t.Context(), form))
	path := "/registry/keys.squirrel.dev/apikeys/" + way + "/"
	var found struct {
		KVs []struct{ Value []byte }
	}
	etcd(t, env, "range", map[string]any{"key": []byte(path + "form")}, &found)
	stored := string(found.KVs[0].Value)

	var writers sync.WaitGroup
	todo := make(chan string, count)
	for i := range count {
		todo <- fmt.Sprintf("key-%06d", i)
	}
	close(todo)
	for range 8 {
		writers.Go(func() {
			for name := range todo {
				content := strings.NewReplacer(`"name":"form"`, `"name":"`+name+`"`, "App form", "App "+name, "form-token", name+"-token",
					string(form.UID), string(uuid.NewUUID()), token.Hash("form"), token.Hash(way+name)).Replace(stored)
				etcd(t, env, "put", map[string]any{"key": []byte(path + name), "value": []byte(content)}, &struct{}{})
			}
		})
	}
	writers.Wait()
}

var etcdClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}

// etcd calls etcd's JSON gateway.
func etcd(t *testing.T, env *testenv.Env, method string, request, response any) {
	t.Helper()
	body, err := json.Marshal(request)
	framework.Must(t, err)
	answer, err := etcdClient.Post(env.EtcdURL()+"/v3/kv/"+method, "application/json", bytes.NewReader(body))
	framework.Must(t, err)
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	framework.Must(t, err)
	if answer.StatusCode != http.StatusOK {
		t.Errorf("etcd answers %s to %s", answer.Status, method)
	}
	framework.Must(t, json.Unmarshal(content, response))
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/fakecache"
	"squirrel.dev/apikey-operator/test/framework/heap"
)

// The cache removes this metadata. The controller's status writes must not remove it from the API server.
func TestTrimKey_TheControllerKeepsAllMetadata(t *testing.T) {
	f := newFixture(t)
	f.startController(nil)
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "owner"}}
	f.Create(owner)
	created := f.CreateKey("frontend", func(key *v1alpha1.APIKey) {
		key.ObjectMeta = metav1.ObjectMeta{
			Namespace: f.Namespace, Name: "frontend", GenerateName: "front",
			Annotations:     map[string]string{corev1.LastAppliedConfigAnnotation: `{"from":"kubectl apply"}`, "team": "shop"},
			Labels:          map[string]string{"tier": "web"},
			Finalizers:      []string{"test.squirrel.dev/kept"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}},
		}
		key.Spec.Secret = &v1alpha1.TokenSecret{TTL: &metav1.Duration{Duration: time.Hour}}
	})
	assertKept := func(when string, key *v1alpha1.APIKey) {
		t.Helper()
		changing := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "ResourceVersion", "Generation", "ManagedFields", "DeletionTimestamp",
			"DeletionGracePeriodSeconds")
		if diff := cmp.Diff(created.ObjectMeta, key.ObjectMeta, changing); diff != "" {
			t.Errorf("the metadata, when %s (-want +got):\n%s", when, diff)
		}
		if len(key.ManagedFields) <= len(created.ManagedFields) {
			t.Errorf("before there were %d field managers, and %d when %s; want the controller in addition", len(created.ManagedFields), len(key.ManagedFields), when)
		}
	}
	assertKept("the key is issued", f.WaitForReady("frontend", v1alpha1.ReasonIssued))

	f.clock.advance(2 * time.Hour)
	f.touchSpec("frontend")
	framework.Eventually(f, "the Secret is deleted", func() bool { return f.GetKey("frontend").Status.SecretName == "" })
	assertKept("its Secret is deleted", f.GetKey("frontend"))

	framework.Must(f, f.Env.Client.Delete(t.Context(), created))
	assertKept("it is being deleted", f.WaitForReady("frontend", v1alpha1.ReasonDeactivated))
	f.UpdateKey("frontend", func(key *v1alpha1.APIKey) { key.Finalizers = nil })
	framework.Eventually(f, "the key is deleted", func() bool { return len(f.Keys()) == 0 })
}

func TestCacheOptions_AKeyTakesAtMost1500Bytes(t *testing.T) {
	assertBytesPerKey(t, 3_000, 1500, func(*v1alpha1.APIKey) {})
}

// Of so few keys each takes more, since they share what the cache itself takes; but not the 12 KB of their metadata and that of their Secret.
func TestInvariant10_TheMetadataOfAKeyTakesNoMemoryInTheCache(t *testing.T) {
	assertBytesPerKey(t, 400, 3_000, func(key *v1alpha1.APIKey) {
		text := strings.Repeat(key.Name, 200)
		key.GenerateName = text
		key.Annotations["example.com/text"] = text
		key.Labels = map[string]string{}
		key.Spec.Secret = &v1alpha1.TokenSecret{
			Labels:      map[string]v1alpha1.LabelValue{"name": v1alpha1.LabelValue(key.Name)},
			Annotations: map[string]v1alpha1.AnnotationValue{"text": v1alpha1.AnnotationValue(text)},
		}
		for i := range 10 {
			name := fmt.Sprintf("%s-%d", key.Name, i)
			key.Labels[name] = name
			key.Finalizers = append(key.Finalizers, "example.com/"+name)
			key.OwnerReferences = append(key.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: name, UID: key.UID})
		}
	})
}

// assertBytesPerKey fills a controller's cache with this many keys that were changed, and weighs it.
func assertBytesPerKey(t *testing.T, count int, limit int64, change func(*v1alpha1.APIKey)) {
	t.Helper()
	keys := make([]v1alpha1.APIKey, count)
	for i := range keys {
		keys[i] = issuedKey(i)
		change(&keys[i])
	}
	before := heap.Live()
	filled := fakecache.New(t, controllers.CacheOptions(), keys)
	perKey := (heap.Live() - before) / int64(count)
	runtime.KeepAlive(keys)
	t.Logf("each of %d keys takes %d bytes", count, perKey)
	if perKey < 400 || perKey > limit {
		t.Errorf("that is not between 400 and %d", limit)
	}
	var list v1alpha1.APIKeyList
	if err := filled.List(t.Context(), &list); err != nil || len(list.Items) != count {
		t.Errorf("the cache has %d keys, %v", len(list.Items), err)
	}
}

// issuedKey returns a key as kubectl applied it and the controller issued it. One of 3 namespaces has it.
func issuedKey(number int) v1alpha1.APIKey {
	plaintext, now := token.New(), metav1.Now()
	condition := func(conditionType string) metav1.Condition {
		return metav1.Condition{
			Type: conditionType, Status: metav1.ConditionTrue, ObservedGeneration: 1, LastTransitionTime: now,
			Reason: v1alpha1.ReasonIssued, Message: "The token is accepted. It was handed over in a Secret.",
		}
	}
	return v1alpha1.APIKey{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("namespace-%02d", number%3), Name: fmt.Sprintf("backend-%07d", number), UID: uuid.NewUUID(),
			ResourceVersion: fmt.Sprint(1000 + number), Generation: 1, CreationTimestamp: now,
			Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: `{"apiVersion":"keys.squirrel.dev/v1alpha1","kind":"APIKey"}`},
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "apikey-operator", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "keys.squirrel.dev/v1alpha1",
				Time: &now, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:status":{"f:tokens":{}}}`), Subresource: "status",
			}},
		},
		Spec: v1alpha1.APIKeySpec{AppName: fmt.Sprintf("Backend App %08d", number), ReadAccess: true, Active: new(true)},
		Status: v1alpha1.APIKeyStatus{
			ObservedGeneration: 1,
			Tokens:             []v1alpha1.TokenRecord{{Hash: token.Hash(plaintext), Hint: token.Hint(plaintext), NotBefore: &now}},
			SecretName:         fmt.Sprintf("backend-%07d-token", number),
			Conditions:         []metav1.Condition{condition(v1alpha1.ConditionReady), condition(v1alpha1.ConditionActive)},
		},
	}
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"squirrel.dev/apikey-operator/api/token"
	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/test/feed"
	"squirrel.dev/apikey-operator/test/heap"
)

func TestAKeyTakesAtMost1500BytesOfTheCache(t *testing.T) {
	const count = 3_000
	keys := make([]v1alpha1.APIKey, count)
	for i := range keys {
		keys[i] = issuedKey(i)
	}
	before := heap.Live()
	filled := feed.Cache(t, controllers.CacheOptions(), keys)
	perKey := (heap.Live() - before) / count
	runtime.KeepAlive(keys)
	if perKey < 400 || perKey > 1500 {
		t.Errorf("each of %d keys takes %d bytes", count, perKey)
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

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build load

package load_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/controllers"
	"squirrel.dev/apikey-operator/test/framework"
	"squirrel.dev/apikey-operator/test/framework/runcontroller"
	"squirrel.dev/apikey-operator/test/framework/testenv"
)

// TestInvariant10_NewKeysAreIssuedWhileVeryManyUsesAreRecorded reports a first use of very many keys at once, as after an upgrade.
func TestInvariant10_NewKeysAreIssuedWhileVeryManyUsesAreRecorded(t *testing.T) {
	const used = "idle"
	env := testenv.Start(t, "--request-timeout=10m")
	framework.Must(t, env.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: used}}))
	populate(t, env, used, *count)
	keys := &v1alpha1.APIKeyList{}
	framework.Must(t, env.Client.List(t.Context(), keys, client.InNamespace(used)))

	f := testenv.NewFixture(t, env)
	var reconciler *controllers.APIKeyReconciler
	runcontroller.StartWith(t, env, env.Config, metav1.NamespaceAll, func(r *controllers.APIKeyReconciler) { reconciler = r })
	issue(f, "first") // once the controller has listed all keys
	started := time.Now()
	for i := range keys.Items {
		key := &keys.Items[i]
		framework.Must(t, reconciler.NoteUse(t.Context(), client.ObjectKeyFromObject(key), key.Status.Tokens[0].Hash, started))
	}
	t.Logf("noted %d uses in %s", len(keys.Items), time.Since(started).Round(time.Millisecond))
	expectNewKeysInTime(f)
}

// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package keyclient_test

import (
	"context"
	"testing"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/api/v1alpha1"
	"squirrel.dev/apikey-operator/internal/keyclient"
	"squirrel.dev/apikey-operator/test/framework"
)

func TestWaitUntilAccepted_ReturnsAConflictWhenItsContextIsDone(t *testing.T) {
	f := newFixtureWithController(t)
	holder := f.create("Frontend App").Key
	second, err := keyclient.CreateNoWait(t.Context(), f.Env.Client, f.options("Frontend App"))
	framework.Must(f, err)
	gomega.NewWithT(t).Eventually(func() *metav1.Condition {
		framework.Must(f, f.Env.Client.Get(t.Context(), client.ObjectKeyFromObject(second.Key), second.Key))
		return meta.FindStatusCondition(second.Key.Status.Conditions, v1alpha1.ConditionStalled)
	}).WithTimeout(framework.Timeout).ShouldNot(gomega.BeNil())
	over, end := context.WithCancel(t.Context())
	end()
	_, err = keyclient.WaitUntilAccepted(over, f.Env.Client, second.Key)
	assertConflict(t, err, holder.Name)
}

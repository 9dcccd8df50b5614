// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/test/framework"
)

// GitOps tools apply the configuration repeatedly. That must neither remove the injected CA bundle nor show a drift.
func TestReapply_KeepsTheCABundleOfTheWebhook(t *testing.T) {
	env := installed(t)
	certificatePEM, _, err := cert.GenerateSelfSignedCertKey("apikey-controller-webhook", nil, nil)
	framework.Must(t, err)
	for apply, flag := range map[string]string{"server-side": "--server-side=true", "client-side": "--server-side=false"} {
		t.Run(apply, func(t *testing.T) {
			g := NewWithT(t)
			suffix := "." + apply
			kustomization := writeKustomization(t, "nameSuffix: "+suffix+"\nresources: [CONFIG/webhook]\n")
			configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{
				ObjectMeta: metav1.ObjectMeta{Name: "apikeys.keys.squirrel.dev" + suffix},
			}
			t.Cleanup(func() {
				framework.Must(t, client.IgnoreNotFound(env.Client.Delete(context.Background(), configuration)))
			})
			kubectl := func(command string) {
				t.Helper()
				output, err := env.Kubectl(t, command, flag, "--kustomize", kustomization)
				g.Expect(err).NotTo(HaveOccurred(), output)
			}
			kubectl("apply")

			framework.Must(t, env.Client.Get(t.Context(), client.ObjectKeyFromObject(configuration), configuration))
			before := configuration.DeepCopy()
			configuration.Webhooks[0].ClientConfig.CABundle = certificatePEM
			patch := client.StrategicMergeFrom(before, client.MergeFromWithOptimisticLock{})
			framework.Must(t, env.Client.Patch(t.Context(), configuration, patch, client.FieldOwner("apikey-operator"))) // as the controller does

			kubectl("diff")
			kubectl("apply")
			framework.Must(t, env.Client.Get(t.Context(), client.ObjectKeyFromObject(configuration), configuration))
			g.Expect(string(configuration.Webhooks[0].ClientConfig.CABundle)).To(Equal(string(certificatePEM)))
		})
	}
}

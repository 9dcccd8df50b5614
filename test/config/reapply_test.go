// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"squirrel.dev/apikey-operator/test/framework"
)

// Whoever applies the configuration again and again, as GitOps does, neither takes from the API server whom to trust, nor sees a drift.
func TestApplyingAgainLeavesWhomTheAPIServerTrusts(t *testing.T) {
	env := installed(t)
	certificatePEM, _, err := cert.GenerateSelfSignedCertKey("apikey-controller-webhook", nil, nil)
	framework.Must(t, err)
	for apply, flag := range map[string]string{"server-side": "--server-side=true", "client-side": "--server-side=false"} {
		t.Run(apply, func(t *testing.T) {
			g := NewWithT(t)
			suffix := "." + apply
			kustomization := suffixed(t, suffix, "webhook")
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

// suffixed returns the directory of a kustomization that has what a directory of config has, with longer names.
func suffixed(t *testing.T, suffix, of string) string {
	t.Helper()
	dir := t.TempDir()
	resource, err := filepath.Abs(filepath.Join(configDir, of))
	framework.Must(t, err)
	resource, err = filepath.Rel(dir, resource)
	framework.Must(t, err)
	kustomization := fmt.Sprintf("nameSuffix: %s\nresources: [%s]\n", suffix, resource)
	framework.Must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600))
	return dir
}
